"""Errors of NVIDIA's driver → what they mean and what to do.

The same fault reads differently by layer: ``cuda.bindings`` gives names, pycuda, ONNX Runtime and
torch give the driver's phrases. Both are matched here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A state of the driver or the GPU that the user can change."""

    signs: tuple[str, ...]
    """Parts of messages that show it, lower case."""
    advice: str
    """What it means, and what to do."""


NO_GPU = (
    "the NVIDIA driver is there, but it finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES, "
    "start a container with --gpus all, and create an instance on a GPU in MIG mode"
)

FAULTS = (
    Fault(
        (
            "cublas_status_not_initialized",
            "cublas_status_alloc_failed",
            "cudnn_status_not_initialized",
        ),
        "a library of CUDA can't start on this GPU; most often the GPU's memory is full "
        "(nvidia-smi shows who uses it), or the library does not fit the driver",
    ),
    Fault(
        ("errornodevice", "error_no_device", "no cuda-capable device", "failed: no device"), NO_GPU
    ),
    Fault(
        (
            "insufficientdriver",
            "error_insufficient_driver",
            "driver version is insufficient",
            "driver on your system is too old",
        ),
        "the NVIDIA driver is too old for this CUDA; CUDA 13 requires R580 or later, and "
        "nvidia-smi shows the version: update the driver",
    ),
    Fault(
        ("systemdrivermismatch", "system_driver_mismatch", "unsupported display driver"),
        "the driver's kernel module and its libraries differ in version; reboot after an update "
        "of the driver, and in a container use the host's libcuda",
    ),
    Fault(
        ("compatnotsupported", "compat_not_supported", "forward compatibility was attempted"),
        "the package cuda-compat does not support this GPU; remove it from LD_LIBRARY_PATH, or "
        "update the driver",
    ),
    Fault(
        ("systemnotready", "system_not_ready", "system not yet initialized"),
        "the GPU's services are not running; start nvidia-fabricmanager and nvidia-persistenced",
    ),
    Fault(
        ("devicesunavailable", "device_unavailable", "busy or unavailable"),
        "another process uses the GPU exclusively, or its compute mode prohibits use; see "
        "nvidia-smi, and allow sharing with: nvidia-smi -c DEFAULT",
    ),
    Fault(
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
    Fault(
        ("initializationerror", "not_initialized", "initialization error", "not initialized"),
        "the driver can't initialize in this process; don't use CUDA in a forked process (start "
        "it with 'spawn'), and run nvidia-smi to see whether the driver works",
    ),
    Fault(
        ("invaliddevice", "invalid_device", "invalid device ordinal"),
        "there is no GPU of that number; nvidia-smi -L lists them, CUDA_VISIBLE_DEVICES hides "
        "some, and in MIG mode a process sees one instance, cuda:0",
    ),
    Fault(
        ("nokernelimage", "no_binary_for_gpu", "no kernel image"),
        "this package contains no code for this generation of GPU; install another version of it",
    ),
    Fault(
        ("ecc_uncorrectable", "eccuncorrectable", "ecc error"),
        "the GPU's memory has failed; reset the GPU or reboot, and see nvidia-smi -q -d ECC",
    ),
    Fault(
        ("cudaerrorunknown", "cuda_error_unknown", "unknown error"),
        "the driver is in a bad state, as after suspend; reload it with: "
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, or reboot",
    ),
)
"""What can be wrong with a driver, the first that matches first."""


_OF_THE_PROGRAM = "operation not permitted when stream is capturing"
"""A phrase that contains a sign of a fault, and means a call that a CUDA graph can't record."""


def explained(message: str) -> str:
    """A message about the GPU, with advice where the fault is a known one."""
    text = message.lower().replace(_OF_THE_PROGRAM, "")
    for fault in FAULTS:
        if any(sign in text for sign in fault.signs):
            return f"{message}: {fault.advice}"
    return message
