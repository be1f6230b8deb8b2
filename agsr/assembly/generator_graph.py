"""The generator's graph: the layers of `agsr.assembly.fusion`, with the loop unrolled.

`agsr.model.generator` defines the function; here ``F_0`` is ``shallow``, and ``h_t`` and ``A_t``
are ``stepT.hidden`` and ``stepT.map``. Every tensor has whole blocks of channels.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agsr.assembly.config import GREY, LEAK, GeneratorConfig
from agsr.assembly.fusion import Layers, fold_skips, lanes
from agsr.assembly.messages import make_node, new_model
from agsr.assembly.tensors import FLOAT_TYPES, set_rounded
from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME, SCALE, Precision

EXACT = ("network.shallow", "network.step.attend", "network.upsample")
"""Layers, beside the first and the last one, that lose most by int8: half of the loss, in a tenth
of the work."""

_IR_VERSION = 10  # of opset 20 to 24
_OUTSIDE = FLOAT_TYPES["fp32"]


def generator_model(
    layers: Layers, config: GeneratorConfig, steps: int, precision: Precision, opset: int
) -> Any:
    """Write the graph ``lr`` → ``sr``; float32 outside, ``precision`` inside.

    Args:
        layers: See `agsr.assembly.fusion.fuse`.
        config: Shape of the network.
        steps: Time steps.
        precision: ``int8`` gives the float32 graph that `agsr.assembly.quantize` changes.
        opset: ONNX opset.
    """
    layers = dict(layers)
    if precision != "int8":
        fold_skips(layers, config)
    model = new_model()
    model.ir_version = _IR_VERSION
    model.opset_import.add().version = opset
    model.graph.name = "agsr"
    _describe(model.graph.input.add(), INPUT_NAME, ("height", "width"))
    _describe(model.graph.output.add(), OUTPUT_NAME, (f"{SCALE}*height", f"{SCALE}*width"))
    _Generator(model.graph, layers, config, precision).write(steps)
    return model


def _describe(value: Any, name: str, sides: tuple[str, str]) -> None:
    value.name = name
    kind = value.type.tensor_type
    kind.elem_type = _OUTSIDE
    kind.shape.dim.add().dim_param = "batch"
    kind.shape.dim.add().dim_value = CHANNELS
    for side in sides:
        kind.shape.dim.add().dim_param = side


class _Generator:
    """Writes nodes and the constants that they read."""

    def __init__(
        self, graph: Any, layers: Layers, config: GeneratorConfig, precision: Precision
    ) -> None:
        self._graph, self._layers, self._config = graph, layers, config
        self._precision = precision
        self._written: set[str] = set()
        self._bias_readers: Counter[str] = Counter()

    def write(self, steps: int) -> None:
        reduced = self._precision in ("fp16", "bf16")
        lr = self._cast(INPUT_NAME, "lr_cast", self._precision) if reduced else INPUT_NAME
        self._layers["grey"] = np.array(GREY, np.float32)
        centered = self._node("Sub", "centered", lr, self._constant("grey"))
        pixels = self._convolve("pixels", centered)
        shallow = self._convolve("shallow", pixels)
        hidden, attention = self._first_step(shallow)
        if steps > 1:
            joined = self._join("joined", shallow, "shallow")
        for number in range(2, steps + 1):
            hidden, attention = self._step(f"step{number}", joined, hidden, attention)
        features = self._node("Add", "features", shallow, self._mul("attended", attention, hidden))
        self._reconstruct(pixels, features, OUTPUT_NAME if not reduced else "sr_cast")
        if reduced:
            self._cast("sr_cast", OUTPUT_NAME, "fp32")

    def _first_step(self, shallow: str) -> tuple[str, str]:
        """``F_0`` → ``h_1``, ``A_1``; ``A_0`` and ``h_0`` are constants."""
        refined = self._blocks("step1", self._join("step1.joined", shallow, "first"))
        update = self._gate("step1", "update", refined)
        candidate = self._from_input("step1", "candidate", refined)
        hidden = self._mul("step1.hidden", update, self._node("Tanh", "step1.candidate", candidate))
        return hidden, self._attend("step1", hidden)

    def _step(self, step: str, joined: str, hidden: str, attention: str) -> tuple[str, str]:
        """``h_{t-1}``, ``A_{t-1}`` → ``h_t``, ``A_t``."""
        again = self._join(f"{step}.joined_hidden", hidden, "hidden")
        again = self._mul(f"{step}.attended", attention, again)
        refined = self._blocks(step, self._node("Add", f"{step}.joined", joined, again))
        hidden = self._gru(step, refined, hidden)
        return hidden, self._attend(step, hidden)

    def _join(self, output: str, value: str, bias: str) -> str:
        name = "network.step.join"
        return self._conv(output, value, name, f"{name}_{bias}")

    def _blocks(self, step: str, features: str) -> str:
        for index in range(self._config.dense_blocks):
            features = self._block(f"{step}.blocks.{index}", features)
        return features

    def _block(self, name: str, features: str) -> str:
        """A residual dense block, its fusion the sum of two convolutions."""
        layer = "step." + name.partition(".")[2]
        known, last = features, self._config.dense_layers - 1
        for index in range(last):
            dense = self._dense(name, layer, index, known)
            known = self._node("Concat", f"{name}.known.{index}", known, dense, axis=1)
        dense = self._dense(name, layer, last, known)
        fused = self._convolve(f"{layer}.fusion", known, f"{name}.fusion")
        if self._precision == "int8":
            fused = self._node("Add", f"{name}.skip", features, fused)
        rest = self._convolve(f"{layer}.fusion_last", dense, f"{name}.fusion_last")
        return self._node("Add", name, fused, rest)

    def _dense(self, name: str, layer: str, index: int, known: str) -> str:
        grown = self._convolve(f"{layer}.dense.{index}", known, f"{name}.grown.{index}")
        return self._node("LeakyRelu", f"{name}.dense.{index}", grown, alpha=LEAK)

    def _gru(self, step: str, refined: str, hidden: str) -> str:
        """``x_t``, ``h_{t-1}`` → ``h_t``."""
        update = self._gate(step, "update", refined, hidden)
        reset = self._gate(step, "reset", refined, hidden)
        remembered = self._mul(f"{step}.remembered", reset, hidden)
        candidate = self._node(
            "Tanh", f"{step}.candidate", self._two_sources(step, "candidate", refined, remembered)
        )
        minus = self._mul(f"{step}.minus", hidden, self._constant("network.step.gru.minus"))
        change = self._node("Add", f"{step}.change", candidate, minus)
        change = self._mul(f"{step}.updated", update, change)
        return self._node("Add", f"{step}.hidden", hidden, change)

    def _gate(self, step: str, gate: str, refined: str, hidden: str | None = None) -> str:
        if hidden is None:
            summed = self._from_input(step, gate, refined)
        else:
            summed = self._two_sources(step, gate, refined, hidden)
        return self._node("Sigmoid", f"{step}.{gate}", summed)

    def _two_sources(self, step: str, gate: str, refined: str, hidden: str) -> str:
        """A convolution over ``concat(hidden, input)`` as the sum of one over each."""
        of_input = self._from_input(step, gate, refined)
        of_hidden = self._convolve(f"step.gru.{gate}.of_hidden", hidden, f"{step}.{gate}.of_hidden")
        return self._node("Add", f"{step}.{gate}.sum", of_input, of_hidden)

    def _from_input(self, step: str, gate: str, refined: str) -> str:
        return self._convolve(f"step.gru.{gate}.of_input", refined, f"{step}.{gate}.of_input")

    def _attend(self, step: str, hidden: str) -> str:
        """``h_t`` → ``A_t``, the same in all channels."""
        products = self._convolve("step.attend.products", hidden, f"{step}.products")
        summed = self._convolve("step.attend.places", products, f"{step}.places")
        lane = self._node("Sigmoid", f"{step}.lanes", summed)
        copies = self._config.width // lanes(self._config)
        return self._node("Concat", f"{step}.map", *[lane] * copies, axis=1)

    def _reconstruct(self, pixels: str, features: str, output: str) -> None:
        """``F_t`` → SR; each pixel is added to all output pixels of its colour."""
        mapped = features
        for index in range(self._config.mapping_pairs):
            name = f"mapping.{index}"
            narrow = self._convolve(f"{name}.narrow", mapped, f"{name}.narrow")
            narrow = self._node("Relu", f"{name}.narrow_relu", narrow)
            wide = self._convolve(f"{name}.widen", narrow, f"{name}.widen")
            wide = self._node("Relu", f"{name}.widen_relu", wide)
            mapped = self._node("Add", name, mapped, wide)
        refined = self._node("Add", "refined", features, mapped)
        detail = self._convolve("upsample", refined)
        summed = self._node("Add", "summed", detail, self._convolve("repeat", pixels))
        self._node("DepthToSpace", output, summed, mode=b"CRD", blocksize=SCALE)

    def _convolve(self, layer: str, value: str, output: str = "") -> str:
        """A convolution by a layer, with its bias if it has one."""
        name = f"network.{layer}"
        bias = f"{name}.bias"
        known = bias if bias in self._layers else ""
        return self._conv(output or layer, value, f"{name}.weight", known)

    def _conv(self, output: str, value: str, weight: str, bias: str) -> str:
        """A convolution that preserves height and width."""
        kernel = self._layers[weight].shape[-1]
        constants = [self._constant(weight), *([self._bias(bias)] if bias else [])]
        shape = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        return self._node("Conv", output, value, *constants, **shape)

    def _mul(self, output: str, first: str, second: str) -> str:
        return self._node("Mul", output, first, second)

    def _cast(self, value: str, output: str, precision: Precision) -> str:
        return self._node("Cast", output, value, to=FLOAT_TYPES[precision])

    def _node(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        made = make_node(self._graph, operator, list(inputs), output, **attributes)
        self._graph.node.append(made)
        return output

    def _bias(self, name: str) -> str:
        """A copy of a bias for each convolution that reads it; weights are shared.

        OpenVINO adds a bias inside the convolution only if no other node reads the constant;
        otherwise the sum is a separate pass over memory.
        """
        self._bias_readers[name] += 1
        number = self._bias_readers[name]
        copy = name if number == 1 else f"{name}.{number}"
        self._layers[copy] = self._layers[name]
        return self._constant(copy)

    def _constant(self, name: str) -> str:
        if name not in self._written:
            self._written.add(name)
            values: NDArray[np.float32] = self._layers[name]
            set_rounded(self._graph.initializer.add(), name, values, self._precision)
        return name
