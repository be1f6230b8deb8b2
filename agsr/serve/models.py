"""Loaded networks: opened when a request names them, a few stay loaded, each used by any thread.

`agsr.engines.open` loads them; `ModelPool.upscaler` lends an `Upscaler` to a worker.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agsr.assembly.requested import Blend
from agsr.backend import Backend
from agsr.contract import DEFAULT_STEPS, PRECISIONS
from agsr.engines.open import check_request, open_backend
from agsr.engines.upscaler import Upscaler
from agsr.errors import AgsrError
from agsr.pretrained import default_steps, is_path, shipped_steps
from agsr.serve.options import RequestOptions
from agsr.serve.settings import ServeSettings

OPENING = ("backend", "provider", "device", "threads", "url", "allow_fallback")
"""Options of the command line that open a backend; the others are those of requests."""

Open = Callable[..., Backend]


class _Key(NamedTuple):
    weights: str
    steps: int | None
    precision: str | None


@dataclass
class _Entry:
    """A network that is loaded, or being loaded."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    backend: Backend | None = None
    upscalers: dict[tuple[Any, ...], Upscaler] = field(default_factory=dict)
    users: int = 0


class ModelPool:
    """Networks by weights, steps and precision.

    Args:
        settings: Of the server.
        opener: Loads a network; see `agsr.engines.open.open_backend`.
    """

    def __init__(self, settings: ServeSettings, opener: Open = open_backend) -> None:
        self._settings, self._opener = settings, opener
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._listed: list[dict[str, Any]] | None = None

    @contextmanager
    def upscaler(self, options: RequestOptions) -> Iterator[Upscaler]:
        """Lend the upscaler that a request asks for.

        Raises:
            AgsrError: It can't be opened.
        """
        weights = self._settings.names[options.weights]
        key = _Key(weights, options.steps, options.precision)
        entry = self._borrowed(key)
        try:
            with entry.lock:
                entry.backend = entry.backend or self._open(key)
                upscaler = self._made(entry, entry.backend, options)
            yield upscaler
        finally:
            self._give_back(entry)

    def _borrowed(self, key: _Key) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
            return entry

    def _give_back(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            surplus = [key for key, found in self._entries.items() if not found.users]
            surplus = surplus[: max(0, len(self._entries) - self._settings.loaded)]
            unused = [self._entries.pop(key).backend for key in surplus]
        for backend in unused:
            if backend is not None:
                backend.close()

    def _open(self, key: _Key) -> Backend:
        return self._opener(
            weights=key.weights,
            steps=key.steps,
            precision=key.precision,
            **self._opening(key.weights),
        )

    def _opening(self, weights: str) -> dict[str, Any]:
        """Return the options that open a network."""
        running = self._settings.running_for(weights)
        return {name: running[name] for name in (*OPENING, "hints") if running.get(name)}

    def _made(self, entry: _Entry, backend: Backend, options: RequestOptions) -> Upscaler:
        """Return the upscaler for these options; they share the network."""
        kind = (options.border, options.separate_alpha, options.normal_map, options.tta)
        if kind not in entry.upscalers:
            running = self._settings.running
            entry.upscalers[kind] = Upscaler(
                backend=backend,
                border=options.border,  # type: ignore[arg-type]  # one of the choices
                separate_alpha=options.separate_alpha,
                normal_map=options.normal_map,
                tta=options.tta,
                **{name: running[name] for name in ("tile", "halo") if name in running},
            )
        return entry.upscalers[kind]

    def close(self) -> None:
        """Release all networks; nothing may use them any more."""
        with self._lock:
            entries, self._entries = self._entries, OrderedDict()
        for entry in entries.values():
            if entry.backend is not None:
                entry.backend.close()

    def listed(self) -> list[dict[str, Any]]:
        """List the weights that requests may name, with the steps and precisions that run here."""
        if self._listed is None:
            names = self._settings.names.items()
            self._listed = [self._described(name, weights) for name, weights in names]
        return self._listed

    def _described(self, name: str, weights: str) -> dict[str, Any]:
        unknown = is_path(weights) or self._settings.is_served
        usual = DEFAULT_STEPS if is_path(weights) else default_steps(weights)
        running = self._settings.running_for(weights)
        asked = running.get("steps")
        blend = Blend.parse(weights)
        measured = [] if unknown else shipped_steps(blend.first if blend else weights)
        steps = sorted({*measured, *([asked] if measured and asked else ())})
        return {
            "name": name,
            "default": name == self._settings.default_name,
            "scale": self._settings.declared_scale(weights),
            "steps": steps,
            "default_steps": asked or (usual if steps else None),
            "precisions": [p for p in PRECISIONS if self._runs(weights, asked, p)],
            "default_precision": running.get("precision") or "auto",
            "text": _TEXTS.get(name, ""),
        }

    def _runs(self, weights: str, steps: int | None, precision: str) -> bool:
        options = self._opening(weights) | {"steps": steps, "precision": precision}
        backend = options.pop("backend", "auto")
        options.pop("allow_fallback", None)
        try:
            check_request(backend, weights, **options)
        except AgsrError:
            return False
        return True


_TEXTS = {
    "psnr": "Most faithful, for clean inputs: shrunk, rendered, drawn.",
    "gan": "Crisp; fine texture is plausible, not true.",
    "photo": "For compressed, noisy or soft photographs; clean and crisp.",
}
"""What shipped weights are for."""
