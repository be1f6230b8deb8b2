"""Another project's graph with the names and metadata of this project's exports, for TensorRT.

Data flow: an ONNX file whose input and output already follow the contract but for their names
(`IoSpec.follows_contract`) → the same graph between ``lr`` and ``sr`` → `agsr.engines.tensorrt`,
which builds an engine of it as of an export.
"""

from __future__ import annotations

from typing import Any

from agsr._version import __version__
from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata, Precision
from agsr.engines.foreign.io_spec import IoSpec
from agsr.errors import ModelError
from agsr.system.optional_import import require


def contract_metadata(spec: IoSpec, precision: Precision, sha256: str) -> ModelMetadata:
    """Return the metadata of the engine of another project's graph.

    An engine's metadata requires steps and a radius, which such a graph doesn't have; whoever opens
    the engine replaces these two by None.
    """
    return ModelMetadata(
        steps=1,
        receptive_radius=1,
        precision=precision,
        config="{}",
        weights_hash=sha256,
        version=__version__,
        scale=spec.scale,
    )


def contract_graph(content: bytes, spec: IoSpec, metadata: ModelMetadata, source: str) -> bytes:
    """Return a graph whose input is ``lr`` and whose only output is ``sr``, with metadata.

    Args:
        content: The ONNX file.
        spec: Its input and output.
        metadata: Becomes its properties.
        source: Its name, for messages.

    Raises:
        ModelError: Another tensor of the graph has one of the two names.
        MissingDependencyError: onnx is not installed.
    """
    onnx = require("onnx", extra="rtx", purpose="Building an engine")
    model = onnx.load_model_from_string(content)
    graph = model.graph
    (given,) = (tensor for tensor in graph.input if tensor.name == spec.input)
    (made,) = (tensor for tensor in graph.output if tensor.name == spec.output)
    renamed = {spec.input: INPUT_NAME, spec.output: OUTPUT_NAME}
    _check_names(graph, renamed, source)
    if spec.input != INPUT_NAME:
        graph.node.insert(0, onnx.helper.make_node("Identity", [INPUT_NAME], [spec.input]))
    if spec.output != OUTPUT_NAME:
        graph.node.append(onnx.helper.make_node("Identity", [spec.output], [OUTPUT_NAME]))
    given.name, made.name = INPUT_NAME, OUTPUT_NAME
    kept = onnx.ValueInfoProto.FromString(made.SerializeToString())
    del graph.output[:], model.metadata_props[:]
    graph.output.append(kept)
    onnx.helper.set_model_props(model, metadata.to_properties())
    return bytes(model.SerializeToString())


def _check_names(graph: Any, renamed: dict[str, str], source: str) -> None:
    """Reject a graph in which a tensor other than input and output has a name of the contract."""
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    taken = [new for old, new in renamed.items() if old != new and new in used]
    if taken:
        raise ModelError(
            f"{source}: TensorRT can't run it: an inner tensor is named {taken[0]!r}; run it with "
            "--backend ort or openvino"
        )
