"""Write a Triton model repository, ready for ``tritonserver --model-repository``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
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

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def write_repository(
    folder: Path,
    name: str,
    model: Path,
    *,
    platform: Platform = "onnxruntime_onnx",
    max_batch: int = 8,
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
        model: ONNX file of ``agsr export``, or engine of ``agsr build``.
        platform: Triton backend that runs it.
        max_batch: Largest batch, from 1.
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
            text = _config(name, platform, max_batch, preferred, queue_microseconds, instances)
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
    max_batch: int,
    preferred: Sequence[int],
    queue_microseconds: int,
    instances: int,
) -> str:
    """Return the configuration in protobuf's text format."""
    sizes = ", ".join(str(size) for size in preferred if size <= max_batch)
    dims = f"[ {CHANNELS}, -1, -1 ]"
    return f'''name: "{name}"
platform: "{platform}"
max_batch_size: {max_batch}
input [ {{ name: "{INPUT_NAME}", data_type: TYPE_FP32, dims: {dims} }} ]
output [ {{ name: "{OUTPUT_NAME}", data_type: TYPE_FP32, dims: {dims} }} ]
dynamic_batching {{
  preferred_batch_size: [ {sizes} ]
  max_queue_delay_microseconds: {queue_microseconds}
}}
instance_group [ {{ count: {instances}, kind: KIND_GPU }} ]
'''
