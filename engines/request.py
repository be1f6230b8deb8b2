"""What a caller asks for: checked options, the place that they mean, and the file to load there.

Data flow: options of a command or call → `Request` → `agsr.engines.open` loads what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.assembly.safetensors_file import require_safetensors
from agsr.contract import MAX_STEPS, PRECISIONS, Precision
from agsr.engines.places import (
    AUTO,
    BACKENDS,
    RUNTIMES,
    Place,
    accepts,
    place_from_options,
    runtime_of,
)
from agsr.engines.ranking import Candidate, candidates, default_precision
from agsr.engines.runtimes.openvino_session import computes_bf16
from agsr.engines.runtimes.providers import is_runtime_installed
from agsr.engines.runtimes.torch_module import check_precision
from agsr.engines.weights_file import Kind, check_weights_options, kind_of
from agsr.errors import BackendRequestError
from agsr.pretrained import (
    CHECKPOINT_SUFFIX,
    DEFAULT_WEIGHTS,
    ENGINE_SUFFIX,
    ONNX_SUFFIX,
    find_checkpoint,
    find_onnx,
    require_file,
    resolve_weights,
)

if TYPE_CHECKING:
    from agsr.engines.triton.address import Address


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options that open a backend; see `agsr.engines.open.open_backend` for their meaning.

    >>> request = Request(backend="ort", device="cuda:1")
    >>> request.runtime, str(request.place)
    ('ort', 'ort:cuda:1')

    Raises:
        RequestError: The steps are out of range, or the hints don't fit the weights.
    """

    backend: str = AUTO
    weights: str = DEFAULT_WEIGHTS
    """A shipped name or a path; the name of a file in the user's model folder becomes its path."""
    steps: int | None = None
    provider: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    hints: str = ""
    url: str | None = None
    """Address of a Triton server, in the form of `agsr.engines.triton.address.Address.parse`."""

    def __post_init__(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= MAX_STEPS:
            raise BackendRequestError(f"steps is {self.steps}; expected 1 to {MAX_STEPS}")
        if self.is_served:  # the weights name a model of the server
            return
        object.__setattr__(self, "weights", resolve_weights(self.weights))
        check_weights_options(self.weights, self.steps, self.hints)

    @property
    def is_served(self) -> bool:
        """Whether a Triton server runs the network."""
        return is_served(self.backend, self.url)

    @property
    def address(self) -> Address:
        """The server.

        Raises:
            BackendRequestError: It is missing or invalid.
        """
        if not self.url:
            raise BackendRequestError(
                "--backend triton needs the address of a server: --url grpc://127.0.0.1:8001"
            )
        from agsr.engines.triton.address import Address  # only those who need it load it

        return Address.parse(self.url)

    @cached_property
    def kind(self) -> Kind:
        """The kind of the weights; finding it opens their file."""
        return kind_of(self.weights)

    @property
    def runtime(self) -> str:
        """The runtime to load, or `AUTO`.

        Raises:
            BackendRequestError: It doesn't exist, can't load the weights, or an option belongs to
                another one. No option is ever ignored.
            CheckpointError: The weights aren't what their ending promises.
        """
        options = {
            "provider": self.provider,
            "threads": self.threads,
            "device": self.device,
            "url": self.url,
        }
        given = [option for option, value in options.items() if value is not None]
        name = self._runtime()
        # A number of threads is checked later, by `Place.check_threads`.
        misplaced = [o for o in given if o != "threads" and not accepts(name, o)]
        if misplaced:
            raise BackendRequestError(
                f"--{misplaced[0]} does not belong to the backend '{name}'; "
                "--provider is ONNX Runtime's, --url that of triton"
            )
        return name

    @property
    def place(self) -> Place:
        """Where a runtime other than `AUTO` runs.

        Raises:
            BackendRequestError: See `runtime`; or the device doesn't exist, or has no threads.
        """
        place = place_from_options(self.runtime, self.provider, self.device)
        place.check_threads(self.threads)
        return place

    @classmethod
    def chosen(cls, weights: str, options: Mapping[str, Any]) -> Request:
        """Return the request of those options that choose a place."""
        names = ("backend", "provider", "device", "url")
        given = {name: value for name in names if (value := options.get(name)) is not None}
        return cls(weights=weights, **given)

    @property
    def chosen_place(self) -> Place:
        """Where it runs: `place`, also for `AUTO`."""
        return Place(AUTO) if self.runtime == AUTO else self.place

    def on_cpu(self) -> Request:
        """Return the request for the CPU in fp32, for when this one fails.

        ONNX Runtime runs it there, but weights for torch run on torch, which has no threads to set.
        """
        here = replace(self, provider=None, device=None, precision=None, url=None)
        if self.kind in (Kind.CHECKPOINT, Kind.COMMUNITY):
            return replace(here, backend="torch", device="cpu", threads=None)
        return replace(here, backend="ort")

    def without_unused_threads(self) -> Request:
        """Return this request without a number of threads if only its fallback has any."""
        without = replace(self, threads=None)
        return self if without.chosen_place.takes_threads else without

    def candidates(self, work: int | None = None) -> list[Candidate]:
        """Return the places that ``auto`` tries, the best first.

        Raises:
            RequestError: The weights don't exist in that form.
        """
        precision = None if self.precision == "auto" else self.precision
        found = candidates(self.weights, precision, self.threads, work)
        if any(candidate.place.runtime in ("ort", "openvino") for candidate in found):
            find_onnx(self.weights, self.steps, graph_precision("openvino", precision or "fp32"))
        return found

    def precision_at(self, place: Place) -> str | None:
        """Return the precision at a place; None for that of the file."""
        if self.precision == "auto":
            return default_precision(place, self.weights)
        return self.precision

    def file_for(self, place: Place, precision: str | None) -> Path:
        """Find the file that a place loads, or make it."""
        if self.kind is Kind.COMMUNITY:
            require_file(self.weights)
            if place.runtime == "torch":
                return Path(self.weights)
            from agsr.engines.community.exported import exported_file

            graph = graph_precision(place.runtime, precision) if precision else None
            return exported_file(Path(self.weights), graph, str(place))
        if place.runtime == "torch":
            return find_checkpoint(self.weights)
        if place.runtime == "trt" and Path(self.weights).suffix == ENGINE_SUFFIX:
            return Path(self.weights)
        default = "fp16" if place.runtime == "trt" else "fp32"
        graph = graph_precision(place.runtime, precision or default)
        return find_onnx(self.weights, self.steps, graph)

    def check(self) -> None:
        """Reject what opening would reject, without loading anything.

        Raises:
            RequestError: An option is wrong, or the weights don't exist in that form.
            CheckpointError: A shipped file is damaged, or a file isn't what its ending promises.
        """
        if self.runtime == AUTO:
            self.candidates()
            return
        place = self.place
        if place.runtime == "triton":
            from agsr.engines.triton.served import names_of

            self.address  # noqa: B018  # raises
            names_of(self.weights, self.steps, self.precision)
            return
        if self.precision == "auto":
            return
        if place.runtime == "torch":
            check_precision(self.precision or "fp32")
        if self.kind is Kind.COMMUNITY:
            require_file(self.weights)
        else:
            self.file_for(place, self.precision)

    def _runtime(self) -> str:
        require_safetensors(Path(self.weights))
        if self.backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise BackendRequestError(f"no backend named '{self.backend}'; known: {known}")
        if self.is_served:
            return "triton"
        suffix, is_auto = Path(self.weights).suffix, self.backend == AUTO
        if suffix == ENGINE_SUFFIX and self.backend not in (AUTO, "trt"):
            raise BackendRequestError(
                f"{self.weights}: a TensorRT engine runs on --backend trt only"
            )
        if self.backend == "torch" and suffix == ONNX_SUFFIX:
            raise BackendRequestError(
                f"torch runs {CHECKPOINT_SUFFIX} files, not {self.weights}: --backend ort"
            )
        return self._automatic(suffix) if is_auto else self.backend

    def _automatic(self, suffix: str) -> str:
        """Return what ``auto`` means where weights or options leave no choice."""
        alone = None if self.provider is not None else runtime_of(self.device)
        if alone is not None and suffix != ENGINE_SUFFIX:
            return alone
        if self.kind is Kind.COMMUNITY:
            return "torch" if self.provider is None else "ort"
        if suffix == ENGINE_SUFFIX:
            return "trt"
        of_torch = self.device is not None and self.provider is None and suffix != ONNX_SUFFIX
        if of_torch and not is_runtime_installed("torch"):
            others = ("trt", "ort") if str(self.device).startswith("cuda") else ("ort",)
            return next((r for r in others if is_runtime_installed(r)), "torch")
        if suffix == CHECKPOINT_SUFFIX or of_torch:
            return "torch"
        return AUTO if self.provider is None and self.device is None else "ort"


def is_served(backend: str, url: str | None) -> bool:
    """Return True if a request means a Triton server.

    >>> is_served("triton", None), is_served("auto", "grpc://host"), is_served("ort", None)
    (True, True, False)
    """
    return backend == "triton" or (backend == AUTO and url is not None)


def takes_threads(weights: str, options: Mapping[str, Any]) -> bool:
    """Return True if the number of threads can be set where these options run a network.

    >>> takes_threads("psnr", {"backend": "trt"}), takes_threads("psnr", {"threads": 2})
    (False, True)
    """
    return Request.chosen(weights, options).chosen_place.takes_threads


def graph_precision(runtime: str, precision: str) -> Precision:
    """Return the precision of the ONNX file needed; fp32 if the runtime converts when it runs.

    OpenVINO converts to bf16 only on processors that compute it; elsewhere it runs a bf16 file.
    """
    if runtime == "openvino" and precision == "bf16" and not computes_bf16():
        return "bf16"
    if precision in RUNTIMES[runtime].precisions:
        return "fp32"
    for known in PRECISIONS:
        if precision == known:
            return known
    raise BackendRequestError(f"no precision named '{precision}'; known: {', '.join(PRECISIONS)}")
