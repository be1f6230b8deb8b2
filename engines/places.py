"""Runtimes, their devices and options, and places: a runtime on a device, like ``ort:cuda:1``.

Places are parsed and printed only here. `agsr.engines.ranking` orders them, `agsr.engines.open`
opens them, and benchmarks and timings name their rows after them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agsr.contract import Precision
from agsr.errors import BackendRequestError


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A library that runs networks."""

    module: str
    """Python module to import; empty for TensorRT, which has two (`agsr.engines.tensorrt.api`)."""
    devices: tuple[str, ...] = ()
    """Kinds of device, the default first; empty if the runtime itself knows them, as torch does."""
    options: frozenset[str] = frozenset()
    """Which of ``provider``, ``device``, ``threads`` and ``url`` it accepts."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Arithmetic that it can run fp32 weights in; other ONNX files fix their precision."""
    is_remote: bool = False
    """Whether a server computes, whose address the user gives."""


RUNTIMES = {
    "ort": Runtime(
        module="onnxruntime",
        devices=("cpu", "cuda", "tensorrt-rtx", "dml", "coreml", "migraphx"),
        options=frozenset({"provider", "device", "threads"}),
    ),
    "openvino": Runtime(
        module="openvino",
        devices=("cpu", "gpu", "npu"),
        options=frozenset({"device", "threads"}),
        precisions=("fp32", "bf16"),
    ),
    "torch": Runtime(
        module="torch", options=frozenset({"device"}), precisions=("fp32", "fp16", "bf16")
    ),
    "trt": Runtime(module="", devices=("cuda",), options=frozenset({"device"})),
    "triton": Runtime(
        module="tritonclient", devices=("server",), options=frozenset({"url"}), is_remote=True
    ),
}
"""Every runtime by name; the only such list."""

AUTO = "auto"
"""Name of the runtime that is chosen when it is opened."""

BACKENDS = (AUTO, *RUNTIMES)
"""Names of the backends; ``auto`` opens the best that works here, see `agsr.engines.ranking`."""

UNNUMBERED = ("cpu", "coreml", "npu")
"""Kinds of device of which there is one."""

_DEVICE = re.compile(r"([a-z][a-z-]*)(?::([0-9]+))?")
_PROVIDER = re.compile(r"[a-z][a-z-]*")
_NUMBER = re.compile(r"[0-9]+")


def accepts(runtime: str, option: str) -> bool:
    """Return True if a runtime has an option; `AUTO` accepts all of them.

    >>> accepts("ort", "provider"), accepts("openvino", "device"), accepts("auto", "threads")
    (True, True, True)
    """
    return runtime == AUTO or (runtime in RUNTIMES and option in RUNTIMES[runtime].options)


def runtime_of(device: str | None) -> str | None:
    """Return the only runtime that has devices of this kind; None if several or none have.

    >>> runtime_of("dml:1"), runtime_of("gpu"), runtime_of("cuda:0")
    ('ort', 'openvino', None)
    """
    kind = (device or "").partition(":")[0]
    known = [name for name, runtime in RUNTIMES.items() if kind in runtime.devices]
    return known[0] if len(known) == 1 else None


def devices(runtime: str) -> tuple[str, ...]:
    """Return the kinds of device of a runtime, the default first; empty if it is not known."""
    return RUNTIMES[runtime].devices if runtime in RUNTIMES else ()


@dataclass(frozen=True)
class Place:
    """A runtime on a device.

    >>> place = Place.parse("ort:cuda:1")
    >>> place.runtime, place.kind, place.index, str(place)
    ('ort', 'cuda', 1, 'ort:cuda:1')
    >>> str(Place("trt")), Place("trt").device, str(Place("ort"))
    ('trt', 'cuda', 'ort:cpu')
    """

    runtime: str
    """A key of `RUNTIMES`, or `AUTO`."""
    device: str = ""
    """``"cpu"``, ``"cuda"``, ``"cuda:1"``; an ONNX Runtime provider is the kind of its device.
    Empty means the runtime's default."""

    def __post_init__(self) -> None:
        if not self.device:
            object.__setattr__(self, "device", self._default)

    @classmethod
    def parse(cls, text: str) -> Place:
        """Parse ``RUNTIME`` or ``RUNTIME:DEVICE``, the inverse of `str`.

        Raises:
            BackendRequestError: The device is empty.
        """
        runtime, separator, device = text.partition(":")
        if separator and not device:
            raise BackendRequestError(
                f"no device in '{text}'; expected {runtime} or {runtime}:DEVICE"
            )
        return cls(runtime, device)

    def __str__(self) -> str:
        named = self.runtime == "ort" or self.device != self._default
        return f"{self.runtime}:{self.device}" if named else self.runtime

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    @property
    def index(self) -> int:
        """Number of the device; 0 if none is given.

        Raises:
            BackendRequestError: The device is not like ``cuda`` or ``cuda:1``.
        """
        match = _DEVICE.fullmatch(self.device)
        if match is None:
            raise BackendRequestError(f"no device '{self.device}'; expected one like cuda:1")
        return int(match[2] or 0)

    @property
    def is_known(self) -> bool:
        """Whether the runtime has devices of this kind."""
        if self.runtime == "torch":
            return True
        fits = _DEVICE.fullmatch(self.device) is not None
        is_numbered = ":" in self.device and self.kind in UNNUMBERED
        return fits and not is_numbered and self.kind in devices(self.runtime)

    @property
    def on_gpu(self) -> bool:
        """Whether it requires an NVIDIA GPU."""
        return self.kind in ("cuda", "tensorrt-rtx")

    @property
    def is_remote(self) -> bool:
        """Whether a server computes."""
        return self.runtime in RUNTIMES and RUNTIMES[self.runtime].is_remote

    @property
    def takes_threads(self) -> bool:
        """Whether its number of threads can be set."""
        return accepts(self.runtime, "threads") and self.kind == "cpu"

    def check_threads(self, threads: int | None) -> None:
        """Reject a number of threads that would have no effect.

        Raises:
            BackendRequestError: A number is given, and this place can't use it.
        """
        if threads is not None and not self.takes_threads:
            raise BackendRequestError(
                f"--threads is for ort and openvino on the CPU, not for '{self}'"
            )

    @property
    def _default(self) -> str:
        return (*devices(self.runtime), "cpu")[0]


def place_from_options(runtime: str, provider: str | None, device: str | None) -> Place:
    """Resolve the options of a command or call to a place.

    >>> str(place_from_options("ort", None, "cuda:1"))
    'ort:cuda:1'

    Args:
        runtime: A key of `RUNTIMES`.
        provider: ONNX Runtime's provider, if given.
        device: Device, if given. Without a provider it chooses the provider, like ``cuda``.

    Raises:
        BackendRequestError: They contradict one another or the runtime.
    """
    if device == "":
        raise BackendRequestError("the device is empty; expected one like cpu or cuda:1")
    if provider is not None and not _PROVIDER.fullmatch(provider):
        known = ", ".join(devices("ort"))
        raise BackendRequestError(
            f"no provider named '{provider}'; known: {known}; --device cuda:1 chooses a GPU"
        )
    if runtime != "ort" or provider is None:
        place = Place(runtime, device or "")
    else:
        place = Place(runtime, provider + _device_number(provider, device))
    if not place.is_known and (runtime != "ort" or provider is None):
        kinds = ", ".join(devices(runtime))
        raise BackendRequestError(f"backend '{runtime}' has no --device {device}; known: {kinds}")
    return place


def _device_number(provider: str, device: str | None) -> str:
    """Return ``:NUMBER`` of a provider's device; empty if it has none."""
    if device is None:
        return ""
    expected = "cuda" if provider == "tensorrt-rtx" else provider
    kind, separator, number = device.partition(":")
    is_numbered = expected not in UNNUMBERED
    if kind != expected or (separator and not (is_numbered and _NUMBER.fullmatch(number))):
        raise BackendRequestError(
            f"--provider {provider} and --device {device} contradict one another; "
            f"expected --device {expected}" + (":NUMBER" if is_numbered else "")
        )
    return separator + number
