"""Passes over traced graphs: join parts, separate biases, add metadata, check operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

import onnx

from agsr.contract import ModelMetadata
from agsr.errors import ExportError

CONTROL_FLOW = frozenset({"Loop", "Scan", "If"})
"""Operators that other projects' exports must not contain: TensorRT and OpenVINO run them badly."""

FORBIDDEN_OPS = CONTROL_FLOW | {"Resize", "Upsample"}
"""Operators that an export must not contain: the loop is unrolled, and nothing is interpolated."""


def chain(
    first: onnx.ModelProto, step: onnx.ModelProto, last: onnx.ModelProto, repeats: int
) -> onnx.ModelProto:
    """Join the graphs of a loop's parts: ``first``, then ``step`` repeatedly, then ``last``.

    A graph reads its inputs by name from the outputs of those before it. An output ``NAME_next``
    of ``step`` replaces ``NAME`` for what follows. Initializers of the same name and value are
    shared.

    Args:
        first: Traced graph; the result has its inputs.
        step: Traced graph.
        last: Traced graph; the result has its outputs.
        repeats: How often ``step`` runs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(first)
    del model.graph.output[:], model.graph.value_info[:]
    known = {constant.name: constant for constant in model.graph.initializer}
    computed = {name for node in first.graph.node for name in node.output}
    names = {value.name: value.name for value in first.graph.output}
    parts = [(step, "step", number) for number in range(2, repeats + 2)] + [(last, "last", 1)]
    for part, label, number in parts:
        made = _append(model.graph, part.graph, names, (label, number), known, computed)
        names |= {name.removesuffix("_next"): new for name, new in made.items()}
    for output in last.graph.output:
        model.graph.output.add().CopyFrom(output)
    return model


def _append(
    graph: onnx.GraphProto,
    part: onnx.GraphProto,
    names: Mapping[str, str],
    position: tuple[str, int],
    known: dict[str, onnx.TensorProto],
    computed: Container[str],
) -> dict[str, str]:
    """Append a part's nodes with renamed values; return the new names of its outputs."""
    label, prefix = position[0], f"{position[0]}{position[1]}"
    renamed = {value.name: names[value.name] for value in part.input}
    for constant in part.initializer:
        name = constant.name
        if name in computed or (name in known and _content(known[name]) != _content(constant)):
            name = f"{label}.{name}"
        renamed[constant.name] = name
        if name not in known:
            known[name] = graph.initializer.add()
            known[name].CopyFrom(constant)
            known[name].name = name
    last = {value.name for value in part.output} if label == "last" else set()
    for node in part.node:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"{prefix}.{node.name}"
        for name in node.output:
            renamed[name] = name if name in last else f"{prefix}.{name}"
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [renamed[name] for name in node.output]
    return {value.name: renamed[value.name] for value in part.output}


def _content(constant: onnx.TensorProto) -> tuple[object, ...]:
    return constant.data_type, tuple(constant.dims), onnx.numpy_helper.to_array(constant).tobytes()


def separate_biases(model: onnx.ModelProto) -> None:
    """Give each convolution its own bias, where the unrolled loop shares one; weights stay shared.

    OpenVINO adds a bias inside the convolution only if no other node reads the constant; otherwise
    the sum is a separate pass over memory. With four steps there were 54, a tenth of the time in
    bf16.

    Args:
        model: Traced graph; changed in place.
    """
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    readers: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        name = node.input[2]
        readers[name] += 1
        if readers[name] > 1 and name in constants:
            copy = graph.initializer.add()
            copy.CopyFrom(constants[name])
            node.input[2] = copy.name = f"{name}.{readers[name]}"


def finalize(
    model: onnx.ModelProto, metadata: ModelMetadata, forbidden_ops: frozenset[str] = FORBIDDEN_OPS
) -> dict[str, int]:
    """Remove traces of the exporting machine and add our metadata; return the operator counts.

    Raises:
        ExportError: An operator is forbidden, or the graph has functions.
    """
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.metadata_props[:], model.metadata_props[:]
    graph.doc_string = model.doc_string = ""
    graph.name = "agsr"
    model.producer_name, model.producer_version = "agsr", metadata.version
    onnx.helper.set_model_props(model, metadata.to_properties())
    onnx.checker.check_model(model, full_check=True)
    operators: dict[str, int] = {}
    for node in graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    forbidden = sorted(forbidden_ops & operators.keys())
    if forbidden or len(model.functions):
        raise ExportError(f"the graph contains {', '.join(forbidden) or 'functions'}: not unrolled")
    return dict(sorted(operators.items()))


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator domain."""
    return next(int(i.version) for i in model.opset_import if i.domain in ("", "ai.onnx"))
