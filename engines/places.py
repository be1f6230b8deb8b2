"""Places: a runtime and the device it runs on, like ``ort:cuda:1``, parsed and printed here alone.

`agsr.engines.ranking` orders them, `agsr.engines.open` opens them, benchmarks and timings name
their rows by them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agsr.errors import BackendRequestError

AUTO = "auto"
"""Name of the runtime that is chosen when it is opened."""

_DEVICE = re.compile(r"([a-z][a-z-]*)(?::([0-9]+))?")
_DEVICES = {"ort": ("cpu", "cuda", "tensorrt-rtx"), "openvino": ("cpu",), "trt": ("cuda",)}
"""Kinds of device by runtime, the default first; those of torch are torch's to know."""

_PROVIDER = re.compile(r"[a-z][a-z-]*")
_NUMBER = re.compile(r"[0-9]+")

_FOR_CPU = ("ort", "openvino", AUTO)
"""Runtimes whose number of threads can be set."""


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
    """``"ort"``, ``"openvino"``, ``"torch"``, ``"trt"`` or `AUTO`."""
    device: str = ""
    """``"cpu"``, ``"cuda"``, ``"cuda:1"``; an ONNX Runtime provider is the kind of its device.
    Empty means the runtime's default."""

    def __post_init__(self) -> None:
        if not self.device:
            object.__setattr__(self, "device", self._default)

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that `str` prints so; ``RUNTIME`` or ``RUNTIME:DEVICE``.

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
        """Number of the device, 0 where none is given.

        Raises:
            BackendRequestError: What is there is not a number.
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
        fits = _DEVICE.fullmatch(self.device) is not None and not self.device.startswith("cpu:")
        return fits and self.kind in _DEVICES.get(self.runtime, ())

    @property
    def on_gpu(self) -> bool:
        """Whether it requires an NVIDIA GPU."""
        return self.kind in ("cuda", "tensorrt-rtx")

    @property
    def takes_threads(self) -> bool:
        """Whether its number of threads can be set."""
        return self.runtime in _FOR_CPU and self.kind == "cpu"

    def check_threads(self, threads: int | None) -> None:
        """Reject a number of threads where it would have no effect.

        Raises:
            BackendRequestError: There is one, and this place has no use for it.
        """
        if threads is not None and not self.takes_threads:
            raise BackendRequestError(
                f"--threads is for ort and openvino on the CPU, not for '{self}'"
            )

    @property
    def _default(self) -> str:
        return _DEVICES.get(self.runtime, ("cpu",))[0]


def named_place(runtime: str, provider: str | None, device: str | None) -> Place:
    """The place that a user names by options.

    Args:
        runtime: Not `AUTO`.
        provider: ONNX Runtime's provider, if given.
        device: Device, if given. It chooses the provider ``cuda`` or ``cpu`` where none is given.

    Raises:
        BackendRequestError: They don't fit one another, or the runtime.
    """
    if device == "":
        raise BackendRequestError("the device is empty; expected one like cpu or cuda:1")
    if provider is not None and not _PROVIDER.fullmatch(provider):
        known = ", ".join(_DEVICES["ort"])
        raise BackendRequestError(
            f"no provider named '{provider}'; known: {known}; --device cuda:1 chooses a GPU"
        )
    if runtime != "ort" or provider is None:
        place = Place(runtime, device or "")
    else:
        place = Place(runtime, provider + _number(provider, device))
    if not place.is_known and (runtime != "ort" or provider is None):
        kinds = ", ".join(_DEVICES[runtime])
        raise BackendRequestError(f"backend '{runtime}' has no --device {device}; known: {kinds}")
    return place


def _number(provider: str, device: str | None) -> str:
    """The number of a provider's device, as its place has it."""
    if device is None:
        return ""
    expected = "cpu" if provider == "cpu" else "cuda"
    kind, separator, number = device.partition(":")
    if kind != expected or (separator and (expected == "cpu" or not _NUMBER.fullmatch(number))):
        raise BackendRequestError(
            f"--provider {provider} and --device {device} contradict one another; "
            f"expected --device {expected}" + (":NUMBER" if expected == "cuda" else "")
        )
    return separator + number
