"""Write models into a Triton repository, ready for ``tritonserver --model-repository``.

Data flow: an ONNX file (or an engine) and what is known of its network → for each `Variant`
``MODEL/config.pbtxt``, whose parameters describe the network to clients, and ``MODEL/1/``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME
from agsr.engines.triton.served import WHOLE
from agsr.errors import ExportError, ExportRequestError
from agsr.system.atomic_file import check_new_folder, complete_folder

Runtime = Literal["onnxruntime", "python", "tensorrt"]
"""Triton backends that can run a model; ``python`` runs the ONNX file by ONNX Runtime."""

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

_FILES: dict[Runtime, str] = {
    "onnxruntime": "model.onnx",
    "python": "model.onnx",
    "tensorrt": "model.plan",
}
"""File names that Triton expects."""

_BACKENDS: dict[Runtime, str] = {
    "onnxruntime": 'platform: "onnxruntime_onnx"',
    "python": 'backend: "python"',
    "tensorrt": 'platform: "tensorrt_plan"',
}

TILE = 256
"""Default side of a model for one size of tiles, LR pixels."""


@dataclass(frozen=True)
class Tensor:
    """An input or output as Triton's configuration describes it."""

    name: str
    """Its name in the graph."""
    dims: tuple[int, ...] = (CHANNELS, -1, -1)
    """Sizes of its axes, -1 for any; with the batch only if that is fixed."""
    kind: str = "FP32"
    """Element type, by Triton's name."""

    def __str__(self) -> str:
        name, dims = _escaped(self.name), [*self.dims]
        return f'{{ name: "{name}", data_type: TYPE_{self.kind}, dims: {dims} }}'


@dataclass(frozen=True)
class Signature:
    """Input and output of a model.

    >>> str(Signature().input)
    '{ name: "lr", data_type: TYPE_FP32, dims: [3, -1, -1] }'
    """

    input: Tensor = Tensor(INPUT_NAME)
    """Pictures."""
    output: Tensor = Tensor(OUTPUT_NAME)
    """Larger pictures."""
    fixed_batch: bool = False
    """Whether the graph accepts one batch size only, so that requests can't be joined."""

    def of_size(self, size: tuple[int, int], scale: int) -> Signature:
        """Return the signature for one height and width.

        >>> Signature().of_size((64, 32), 4).output.dims
        (3, 256, 128)
        """
        height, width = size
        large = height * scale, width * scale
        return replace(self, input=_sized(self.input, size), output=_sized(self.output, large))


def _sized(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Set the free sides of a picture, which are the last two free axes."""
    free = [axis for axis, side in enumerate(tensor.dims) if side < 0][-2:]
    sides = dict(zip(free, size, strict=True))
    dims = (sides.get(axis, side) for axis, side in enumerate(tensor.dims))
    return replace(tensor, dims=tuple(dims))


@dataclass(frozen=True, kw_only=True)
class ServedNetwork:
    """A network and what its models' configurations say about it."""

    signature: Signature = Signature()
    """Its input and output."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What clients read: the ``agsr.*`` properties of an export, or of another project's network
    ``agsr.hints``."""
    scale: int = 4
    """Output pixels per input pixel along each axis."""
    tile: int | None = None
    """Side of the tiles of a second model, all of whose requests share batches; None for none."""
    tile_parameters: Mapping[str, str] = field(default_factory=dict)
    """`parameters` of that model."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model runs on the server."""

    runtime: Runtime = "onnxruntime"
    max_batch: int = 8
    """Largest batch, from 1."""
    preferred: tuple[int, ...] = (4, 8)
    """Batch sizes that are worth waiting for."""
    queue_microseconds: int = 500
    """Longest wait for more requests."""
    instances: int = 1
    """Copies of the model per GPU, or on the CPU."""


_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def tile_name(name: str, tile: int) -> str:
    """Return the name of a model for one size of tiles.

    >>> tile_name("psnr-4", 256)
    'psnr-4-tile256'
    """
    return f"{name}-tile{tile}"


def write_repository(
    folder: Path,
    name: str,
    model: Path,
    network: ServedNetwork | None = None,
    serving: Serving | None = None,
) -> list[Path]:
    """Write ``FOLDER/NAME`` for pictures of any size, and ``FOLDER/NAME-tileN`` for one size.

    Requests that arrive together run as one batch if they have one size, as all of the second
    model have. Each model's folder appears only when it is complete.

    Args:
        folder: The model repository; other models in it are not changed.
        name: Name of the model in Triton.
        model: ONNX file of ``agsr export`` or of another project, or engine of ``agsr build``.
        network: What it is; None means one of this project's networks.
        serving: How it runs.

    Returns:
        The models' folders.

    Raises:
        ExportError: See `check_repository`, or the model can't be copied.
    """
    network, serving = network or ServedNetwork(), serving or Serving()
    targets = check_repository(folder, name, network.tile)
    for target, variant in zip(targets, _variants(name, network), strict=True):
        _write_model(target, model, variant, serving)
    return targets


def _write_model(target: Path, model: Path, network: ServedNetwork, serving: Serving) -> None:
    """Write a model's folder, complete or not at all."""
    try:
        with complete_folder(target) as temporary:
            version = temporary / "1"
            version.mkdir()
            shutil.copyfile(model, version / _FILES[serving.runtime])
            if serving.runtime == "python":
                shutil.copyfile(_PYTHON_MODEL, version / "model.py")
            text = _config(target.name, network, serving)
            (temporary / "config.pbtxt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{target}: can't be written: {error.strerror}") from None


_PYTHON_MODEL = Path(__file__).with_name("triton_model.py")


def _variants(name: str, network: ServedNetwork) -> Iterator[ServedNetwork]:
    """List the network as it is, and for one size of tiles."""
    yield network
    if network.tile is not None:
        size = network.tile, network.tile
        yield replace(
            network,
            signature=network.signature.of_size(size, network.scale),
            parameters={**network.tile_parameters, WHOLE: name},
        )


def check_repository(folder: Path, name: str, tile: int | None = None) -> list[Path]:
    """Check before an export that `write_repository` can write.

    Returns:
        The models' folders, which do not exist yet.

    Raises:
        ExportError: The name can't be a folder's, a model exists already, or the repository can't
            be written.
    """
    if not _NAME.fullmatch(name) or name in (os.curdir, os.pardir):
        raise ExportRequestError(
            f"{name!r} can't name a Triton model: letters, digits and _.- only"
        )
    names = [name] if tile is None else [name, tile_name(name, tile)]
    targets = [folder / each for each in names]
    for target in targets:
        _check_new(target)
    return targets


def _check_new(target: Path) -> None:
    try:
        check_new_folder(target)
    except FileExistsError:
        raise ExportError(f"{target} exists; remove it, or choose another folder") from None
    except OSError as error:
        raise ExportError(f"{target}: can't be written: {error.strerror}") from None


def _config(name: str, network: ServedNetwork, serving: Serving) -> str:
    """Return the configuration in protobuf's text format."""
    max_batch = 0 if network.signature.fixed_batch else serving.max_batch
    batching = "" if network.signature.fixed_batch else _batching(serving)
    parameters = "".join(
        f'parameters {{ key: "{_escaped(key)}", value: {{ string_value: "{_escaped(value)}" }} }}\n'
        for key, value in sorted(network.parameters.items())
    )
    return f"""name: "{name}"
{_BACKENDS[serving.runtime]}
max_batch_size: {max_batch}
input [ {network.signature.input} ]
output [ {network.signature.output} ]
{batching}instance_group [ {{ count: {serving.instances}, kind: KIND_AUTO }} ]
{parameters}"""


def _batching(serving: Serving) -> str:
    sizes = ", ".join(str(size) for size in serving.preferred if size <= serving.max_batch)
    return f"""dynamic_batching {{
  preferred_batch_size: [ {sizes} ]
  max_queue_delay_microseconds: {serving.queue_microseconds}
}}
"""


def _escaped(value: str) -> str:
    r"""Escape a text for protobuf's text format.

    >>> _escaped('{"width": 8}')
    '{\\"width\\": 8}'
    """
    escapes = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\0": r"\000"}
    return "".join(escapes.get(char, char) for char in value)
