"""Choose the halo of tiles: as requested, the receptive radius, or measured at the first cut."""

from __future__ import annotations

import logging

from agsr.backend import Backend
from agsr.engines.community.halo import MeasuredHalo, can_measure, find_halo
from agsr.engines.feather import Seams
from agsr.errors import BackendError
from agsr.tiling import DEFAULT_HALO

FEATHERED = (64, 32, 16)
"""Halos of tiles that are blended, LR pixels: the wider, the smaller the steps."""

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
        self._has_warned = self._is_unmeasurable = False

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
            self._is_unmeasurable = True
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
        if self.requested == "exact":  # else `cut` raises an error
            return True
        if self._backend.info.tiling == "discouraged" or self._is_unmeasurable:
            return False
        return self._measured is None or self._measured.is_exact

    @property
    def feathered(self) -> list[int]:
        """LR pixels to try for tiles that are blended: half of their overlap."""
        if isinstance(self.requested, int):
            return [self.requested]
        largest = self._backend.info.largest
        room = max(FEATHERED) if largest is None else min(largest) // 4
        return [halo for halo in FEATHERED if halo <= room] or [max(1, room)]

    def warn_if_inexact(self, blended: bool) -> None:
        """Log a warning, once, if tiles give another result than the whole image."""
        if self.is_exact or self._has_warned:
            return
        self._has_warned = True
        info = self._backend.info
        reason = "looks at more of a picture than a tile shows"
        if self._is_unmeasurable:
            reason = f"accepts too few pixels to measure a halo: tiles have one of {self._default}"
        joined = "blended" if blended else "not blended, since they don't overlap"
        advice = "; --tile 0 avoids tiles where memory suffices" if info.largest is None else ""
        _log.warning(
            "%s %s; tiles are %s, and the result is not exactly that of the whole image%s%s",
            *(info.model, reason, joined, self._bound, advice),
        )

    @property
    def _bound(self) -> str:
        if self._measured is None or self._measured.is_exact:
            return ""
        return f", by {self._measured.difference:.2g} levels of 255 on a test picture"

    def log_seams(self, seams: Seams) -> None:
        """Log how much the tiles of an image differed."""
        _log.info("%s: %s", self._backend.info.model, seams)

    def _measure(self) -> MeasuredHalo:
        if self._measured is None:
            self._measured = find_halo(self._backend)
        return self._measured
