"""What a Triton configuration says about a network: its input and output, and how to use it.

Data flow: metadata of an export, or the format of another project's network as
`agsr.engines.foreign` found it → `ServedNetwork` → `agsr.export.triton`. The parameters are read by
`agsr.engines.triton`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agsr.backend import BackendInfo
from agsr.contract import CHANNELS, PREFIX, ModelMetadata, SizeRule, Tiling
from agsr.engines.foreign.io_spec import IoSpec
from agsr.engines.onnx_file.inspect import accepts_one_picture, read_properties
from agsr.export.triton import ServedNetwork, Signature, Tensor

_TYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8"}
"""Triton's names of element types."""


def exported_network(path: Path, tile: int) -> ServedNetwork:
    """Describe an export of ``agsr export``.

    Args:
        path: The ONNX file.
        tile: Requested side of tiles for a second model; 0 for none.

    Raises:
        ModelError: The file isn't such an export.
    """
    found = read_properties(path)
    properties = {key: value for key, value in found.items() if key.startswith(PREFIX)}
    metadata = ModelMetadata.from_properties(properties, str(path))
    side = tile_side(tile, metadata.sizes, metadata.tiling)
    fixed = SizeRule(fixed=(side, side)).to_properties() if side else {}
    return ServedNetwork(
        signature=_exported_signature(metadata, one=accepts_one_picture(path)),
        parameters=properties,
        scale=metadata.scale,
        tile=side,
        tile_parameters=properties | {PREFIX + name: value for name, value in fixed.items()},
    )


def foreign_network(spec: IoSpec, info: BackendInfo, tile: int) -> ServedNetwork:
    """Describe another project's ONNX network.

    Args:
        spec: Format of its input and output.
        info: The backend that it ran on.
        tile: As for `exported_network`.
    """
    known = {
        PREFIX + "precision": info.precision,
        PREFIX + "weights_hash": info.weights_hash,
    }
    return ServedNetwork(
        signature=foreign_signature(spec),
        parameters=known | {PREFIX + "hints": _hints(spec, spec.rule)},
        scale=spec.scale,
        tile=tile_side(tile, spec.rule, info.tiling),
        tile_parameters=known | {PREFIX + "hints": _hints(spec, SizeRule())},
    )


def tile_side(tile: int, sizes: SizeRule, tiling: Tiling) -> int | None:
    """Return the side of a model for one size of tiles; None if there can't be one.

    >>> tile_side(100, SizeRule(multiple=16), "supported"), tile_side(100, SizeRule(), "internal")
    (112, None)
    """
    if not tile or sizes.fixed is not None or tiling == "internal":
        return None
    return max(sizes.padded(tile, tile))


def foreign_signature(spec: IoSpec) -> Signature:
    """Describe another project's input and output to Triton."""
    height, width = spec.size or (-1, -1)
    large = tuple(side * spec.scale if side > 0 else side for side in (height, width))
    batch = () if spec.batch is None else (spec.batch,)
    depth = spec.channels if spec.channels in (1, CHANNELS) else -1  # alpha may be dropped

    def tensor(name: str, kind: str, layout: str, channels: int, *size: int) -> Tensor:
        axes = (channels, *size) if layout == "NCHW" else (*size, channels)
        return Tensor(name, (*batch, *axes), _TYPES[kind])

    return Signature(
        tensor(spec.input, spec.input_type, spec.input_layout, spec.channels, height, width),
        tensor(spec.output, spec.output_type, spec.output_layout, depth, *large),
        fixed_batch=spec.batch is not None,
    )


def _exported_signature(metadata: ModelMetadata, *, one: bool) -> Signature:
    """Return the contract's signature, of the only size and for one picture if that is fixed."""
    signature = Signature()
    if one:
        signature = Signature(
            replace(signature.input, dims=(1, *signature.input.dims)),
            replace(signature.output, dims=(1, *signature.output.dims)),
            fixed_batch=True,
        )
    size = metadata.sizes.fixed
    return signature if size is None else signature.of_size(size, metadata.scale)


def _hints(spec: IoSpec, rule: SizeRule) -> str:
    """Return a format as hints; sizes that the signature fixes are no part of them."""
    values: dict[str, object] = {
        "layout": spec.input_layout,
        "channels": spec.channels,
        "input_peak": spec.input_peak,
        "output_peak": spec.output_peak,
    }
    if spec.channels != 1:
        values |= {"order": spec.order, "output_order": spec.output_order}
    if rule.fixed is None:
        values |= {"multiple": rule.multiple} if rule.multiple > 1 else {}
        values |= {"minimum": rule.minimum} if rule.minimum > 1 else {}
        values |= {"square": "yes"} if rule.square else {}
    return ",".join(f"{name}={value}" for name, value in values.items())
