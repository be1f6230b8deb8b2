"""Write a Triton model repository, ready for ``tritonserver --model-repository``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME
from agsr.errors import ExportError, ExportRequestError
from agsr.system.atomic_file import check_new_folder, complete_folder

Platform = Literal["onnxruntime_onnx", "tensorrt_plan"]

MODEL_FILES: dict[Platform, str] = {
    "onnxruntime_onnx": "model.onnx",
    "tensorrt_plan": "model.plan",
}
"""File names that Triton expects, by platform."""


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
        return f'{{ name: "{self.name}", data_type: TYPE_{self.kind}, dims: {[*self.dims]} }}'


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


_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def write_repository(
    folder: Path,
    name: str,
    model: Path,
    *,
    platform: Platform = "onnxruntime_onnx",
    max_batch: int = 8,
    signature: Signature | None = None,
    preferred: Sequence[int] = (4, 8),
    queue_microseconds: int = 500,
    instances: int = 1,
) -> Path:
    """Write ``FOLDER/NAME/config.pbtxt`` and ``FOLDER/NAME/1/model.onnx`` (or ``model.plan``).

    Requests of one size that arrive together are run as one batch. The model's folder appears only
    when it is complete.

    Args:
        folder: The model repository; other models in it are not changed.
        name: Name of the model in Triton.
        model: ONNX file of ``agsr export`` or of another project, or engine of ``agsr build``.
        platform: Triton backend that runs it.
        max_batch: Largest batch, from 1.
        signature: Input and output of the model; None means those of this project's.
        preferred: Batch sizes that are worth waiting for.
        queue_microseconds: Longest wait for more requests.
        instances: Copies of the model per GPU.

    Returns:
        The model's folder.

    Raises:
        ExportError: See `check_repository`, or the model can't be copied.
    """
    target = check_repository(folder, name)
    try:
        with complete_folder(target) as temporary:
            (temporary / "1").mkdir()
            shutil.copyfile(model, temporary / "1" / MODEL_FILES[platform])
            io = signature or Signature()
            text = _config(name, platform, io, max_batch, preferred, queue_microseconds, instances)
            (temporary / "config.pbtxt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{target}: can't be written: {error.strerror}") from None
    return target


def check_repository(folder: Path, name: str) -> Path:
    """Check before an export that `write_repository` can write.

    Returns:
        The model's folder, which does not exist yet.

    Raises:
        ExportError: The name can't be a folder's, the model exists already, or the repository
            can't be written.
    """
    if not _NAME.fullmatch(name) or name in (os.curdir, os.pardir):
        raise ExportRequestError(
            f"{name!r} can't name a Triton model: letters, digits and _.- only"
        )
    target = folder / name
    try:
        check_new_folder(target)
    except FileExistsError:
        raise ExportError(f"{target} exists; remove it, or choose another folder") from None
    except OSError as error:
        raise ExportError(f"{target}: can't be written: {error.strerror}") from None
    return target


def _config(
    name: str,
    platform: Platform,
    signature: Signature,
    max_batch: int,
    preferred: Sequence[int],
    queue_microseconds: int,
    instances: int,
) -> str:
    """Return the configuration in protobuf's text format."""
    sizes = ", ".join(str(size) for size in preferred if size <= max_batch)
    batching = f"""dynamic_batching {{
  preferred_batch_size: [ {sizes} ]
  max_queue_delay_microseconds: {queue_microseconds}
}}
"""
    if signature.fixed_batch:
        max_batch, batching = 0, ""
    return f"""name: "{name}"
platform: "{platform}"
max_batch_size: {max_batch}
input [ {signature.input} ]
output [ {signature.output} ]
{batching}instance_group [ {{ count: {instances}, kind: KIND_GPU }} ]
"""
