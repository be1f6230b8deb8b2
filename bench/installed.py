"""Which of the packages that matter are installed, as lines of ``agsr doctor``.

`agsr.bench.doctor` has the other parts of the report, from the same `Check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from agsr.system.optional_import import install_command

PACKAGES = {
    "numpy": "",
    "opencv-python-headless": "",
    "pillow": "",
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "openvino": "cpu",
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "spandrel": "models",
    "tensorboard": "train",
    "jinja2": "bench",
    "matplotlib": "bench",
    "pooch": "bench",
    "tensorrt": "gpu",
    "tensorrt-rtx-cu13": "rtx",
    "cuda-bindings": "gpu",
    "pycuda": "pycuda",
    "pillow-heif": "heif",
    "av": "video",
    "starlette": "serve",
    "uvicorn": "serve",
    "python-multipart": "serve",
    "prometheus-client": "serve",
}
"""Distributions that matter, and the extra that brings each; those without are named themselves."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's report."""

    name: str
    """What was looked at."""
    found: str
    """What was found."""
    ok: bool
    """Whether it is there and works."""
    advice: str = ""
    """Command that adds what is missing."""


def packages() -> list[Check]:
    """Installed versions of `PACKAGES`; onnxruntime and onnxruntime-gpu exclude each other."""
    found = {name: _version(name) for name in PACKAGES}
    return [
        *(_package(name, version) for name, version in found.items()),
        *([_clash()] if found["onnxruntime"] and found["onnxruntime-gpu"] else []),
    ]


def _package(name: str, version: str) -> Check:
    extra = PACKAGES[name]
    advice = "" if version else install_command(extra) if extra else f"pip install {name}"
    return Check(name=name, found=version or "absent", ok=bool(version), advice=advice)


def _clash() -> Check:
    return Check(
        name="onnxruntime clash",
        found="onnxruntime and onnxruntime-gpu overwrite each other's files",
        ok=False,
        advice="pip uninstall -y onnxruntime onnxruntime-gpu, then " + install_command("cpu"),
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
