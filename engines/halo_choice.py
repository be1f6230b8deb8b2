"""Choose the halo of tiles: as requested, the receptive radius, or measured at the first cut."""

from __future__ import annotations

import logging

from agsr.backend import Backend
from agsr.engines.community.halo import MeasuredHalo, can_measure, find_halo
from agsr.errors import BackendError
from agsr.tiling import DEFAULT_HALO

_log = logging.getLogger(__name__)


class HaloChoice:
    """The halo of a backend's tiles.

    Args:
        backend: Runs the network; its halo is measured on it if need be.
        requested: LR pixels, ``"exact"`` or ``"auto"``.
    """

    def __init__(self, backend: Backend, requested: int | str) -> None:
        self._backend, self.requested = backend, requested
        self._measured: MeasuredHalo | None = None
        self._has_warned = False

    @property
    def uncut(self) -> int:
        """LR pixels, as far as they are known without measuring."""
        if isinstance(self.requested, int):
            return self.requested
        radius = self._backend.info.receptive_radius
        if radius is None:
            return self._default
        return radius if self.requested == "exact" else DEFAULT_HALO

    @property
    def _default(self) -> int:
        """LR pixels that leave half of the largest input to a tile, at most the default."""
        largest = self._backend.info.largest
        return DEFAULT_HALO if largest is None else min(DEFAULT_HALO, min(largest) // 4)

    @property
    def cut(self) -> int:
        """LR pixels for an image that is cut.

        Raises:
            BackendError: The halo is ``"exact"``, and none is.
        """
        if isinstance(self.requested, int) or self._backend.info.receptive_radius is not None:
            return self.uncut
        if self.requested == "auto" and not can_measure(self._backend):
            self._warn_of_default()
            return self._default
        measured = self._measure()
        if self.requested == "exact" and not measured.is_exact:
            raise BackendError(
                f"{self._backend.info.model} has no halo that equals the whole image: the best is "
                f"{measured}; use --halo auto, or --tile 0 on a machine with more memory"
            )
        return measured.halo

    @property
    def is_exact(self) -> bool:
        """Whether tiles with this halo give the result of the whole image, as far as is known."""
        if self._backend.info.tiling == "discouraged":
            return False
        return self._measured is None or self._measured.is_exact

    def warn_if_inexact(self) -> None:
        """Log a warning, once, if tiles give another result than the whole image."""
        if self.is_exact or self._has_warned:
            return
        self._has_warned = True
        bound = ""
        if self._measured is not None:
            bound = f", by {self._measured.difference:.2g} levels of 255 on a test picture"
        _log.warning(
            "%s looks at more of a picture than a tile shows, so that tiles differ from the whole"
            "%s; --tile 0 avoids them where memory suffices",
            *(self._backend.info.model, bound),
        )

    def _warn_of_default(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s accepts too few pixels to measure a halo: tiles have one of %d pixels, and may "
                "show seams; --halo sets another",
                *(self._backend.info.model, self._default),
            )

    def _measure(self) -> MeasuredHalo:
        if self._measured is None:
            self._measured = find_halo(self._backend)
        return self._measured
