"""Explain errors of NVIDIA's driver: what they mean and what to do.

The same error reads differently by layer: ``cuda.bindings`` gives names; pycuda, ONNX Runtime and
torch give the driver's phrases. Both are matched here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CudaError:
    """An error of the driver or the GPU that the user can fix."""

    patterns: tuple[str, ...]
    """Parts of its messages, lower case."""
    advice: str
    """What it means and how to fix it."""


NO_GPU = (
    "the NVIDIA driver is there, but it finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES, "
    "start a container with --gpus all, and create an instance on a GPU in MIG mode"
)

CUDA_ERRORS = (
    CudaError(
        (
            "cublas_status_not_initialized",
            "cublas_status_alloc_failed",
            "cudnn_status_not_initialized",
        ),
        "a library of CUDA can't start on this GPU; most often the GPU's memory is full "
        "(nvidia-smi shows who uses it), or the library does not fit the driver",
    ),
    CudaError(
        ("errornodevice", "error_no_device", "no cuda-capable device", "failed: no device"), NO_GPU
    ),
    CudaError(
        (
            "insufficientdriver",
            "error_insufficient_driver",
            "driver version is insufficient",
            "driver on your system is too old",
        ),
        "the NVIDIA driver is too old for this CUDA; CUDA 13 requires R580 or later, and "
        "nvidia-smi shows the version: update the driver",
    ),
    CudaError(
        ("systemdrivermismatch", "system_driver_mismatch", "unsupported display driver"),
        "the driver's kernel module and its libraries differ in version; reboot after an update "
        "of the driver, and in a container use the host's libcuda",
    ),
    CudaError(
        ("compatnotsupported", "compat_not_supported", "forward compatibility was attempted"),
        "the package cuda-compat does not support this GPU; remove it from LD_LIBRARY_PATH, or "
        "update the driver",
    ),
    CudaError(
        ("systemnotready", "system_not_ready", "system not yet initialized"),
        "the GPU's services are not running; start nvidia-fabricmanager and nvidia-persistenced",
    ),
    CudaError(
        ("devicesunavailable", "device_unavailable", "busy or unavailable"),
        "another process uses the GPU exclusively, or its compute mode prohibits use; see "
        "nvidia-smi, and allow sharing with: nvidia-smi -c DEFAULT",
    ),
    CudaError(
        (
            "erroroperatingsystem",
            "error_operating_system",
            "os call failed",
            "notpermitted",
            "not_permitted",
            "operation not permitted",
        ),
        "no permission to use the GPU; check the access rights of /dev/nvidia* (group video), and "
        "start a container with --gpus all",
    ),
    CudaError(
        ("initializationerror", "not_initialized", "initialization error", "not initialized"),
        "the driver can't initialize in this process; don't use CUDA in a forked process (start "
        "it with 'spawn'), and run nvidia-smi to see whether the driver works",
    ),
    CudaError(
        ("invaliddevice", "invalid_device", "invalid device ordinal"),
        "there is no GPU of that number; nvidia-smi -L lists them, CUDA_VISIBLE_DEVICES hides "
        "some, and in MIG mode a process sees one instance, cuda:0",
    ),
    CudaError(
        ("nokernelimage", "no_binary_for_gpu", "no kernel image"),
        "this package contains no code for this generation of GPU; install another version of it",
    ),
    CudaError(
        ("ecc_uncorrectable", "eccuncorrectable", "ecc error"),
        "the GPU's memory has failed; reset the GPU or reboot, and see nvidia-smi -q -d ECC",
    ),
    CudaError(
        ("cudaerrorunknown", "cuda_error_unknown", "unknown error"),
        "the driver is in a bad state, as after suspend; reload it with: "
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, or reboot",
    ),
)
"""Known errors; the first match counts."""

_CAPTURE_ERROR = "operation not permitted when stream is capturing"
"""Contains the pattern of another error, but means a call that a CUDA graph can't capture."""


def explain(message: str) -> str:
    """Return a message about the GPU, with advice if the error is known.

    >>> explain("CUDA: cudaErrorECCUncorrectable")[:61]
    "CUDA: cudaErrorECCUncorrectable: the GPU's memory has failed;"
    """
    text = message.lower().replace(_CAPTURE_ERROR, "")
    for error in CUDA_ERRORS:
        if any(pattern in text for pattern in error.patterns):
            return f"{message}: {error.advice}"
    return message
