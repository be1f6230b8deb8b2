"""Upscale decoded pictures: padding, alpha, grey, normal maps, passes and output size.

Data flow: `Picture` → arrays of colour and alpha → bands of upscaled rows (`agsr.engines.tiled`) →
`RowBands` → downsampled to the requested size → a picture, or on to the encoder.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from agsr.backend import Backend, BackendInfo
from agsr.engines.feather import Seams
from agsr.engines.planes import Array
from agsr.engines.tile_policy import TilePolicy
from agsr.engines.tiled import upscaled_bands
from agsr.image.ops.alpha import bounded, without_hidden_colour
from agsr.image.ops.neutral import is_neutral
from agsr.image.ops.normal_map import normalised, points_outwards, usable
from agsr.image.ops.output_size import OutputSize, halfway
from agsr.image.ops.padding import Border, extended
from agsr.image.ops.resample import crop_bands, downsample_bands
from agsr.image.picture import Picture, RowBands, as_row_bands, materialize
from agsr.system.progress import ShareCallback


@dataclass(frozen=True)
class NetworkFacts:
    """What results depend on besides the input; another process can use it without the network."""

    info: BackendInfo
    tiling: tuple[int | str, int | str, Border | None]
    """Tile, halo and border as requested."""
    separate_alpha: bool
    normal_map: bool


class PictureUpscaler:
    """Upscales pictures on a loaded backend; see `agsr.engines.upscaler.Upscaler`.

    Args:
        backend: Runs the network.
        policy: Chooses tiles and halo.
        border: Pixels that the halo shows beyond the image; see `Upscaler`.
        separate_alpha: Whether alpha is data; see `Upscaler`.
        normal_map: Whether pictures are normal maps; see `Upscaler`.
    """

    def __init__(
        self,
        backend: Backend,
        policy: TilePolicy,
        border: Border | None,
        *,
        separate_alpha: bool,
        normal_map: bool,
    ) -> None:
        self._backend, self._policy, self._border = backend, policy, border
        self.normal_map = normal_map
        """Whether images are normal maps."""
        self.separate_alpha = separate_alpha or normal_map
        """Whether alpha is data."""

    @property
    def info(self) -> BackendInfo:
        """Backend, device, precision and steps that really run."""
        return self._backend.info

    @property
    def shows_halo(self) -> bool:
        """Whether the halo had an effect: an image was cut, or has a border to show."""
        return self._policy.has_cut or self._border is not None

    @property
    def seams(self) -> Seams:
        """How much overlapping tiles differed, at most, if their overlap was blended: for networks
        that look at more of a picture than a tile shows. Zeros for exact tiles."""
        return self._policy.seams

    @property
    def tiling(self) -> tuple[int | str, int | str, Border | None]:
        """Tile, halo and border as requested."""
        return (*self._policy.requested, self._border)

    @property
    def facts(self) -> NetworkFacts:
        """What results depend on besides the input."""
        return NetworkFacts(self.info, self.tiling, self.separate_alpha, self.normal_map)

    def picture(
        self,
        picture: Picture,
        progress: ShareCallback | None = None,
        sizing: OutputSize | None = None,
    ) -> Picture:
        """Upscale a decoded file: its pixels, and its alpha unless that is constant.

        Args:
            picture: Pixels, alpha and metadata; the metadata is unchanged.
            progress: As for arrays.
            sizing: Size of the result; None means the network's scale times the picture's. It is
                cropped to `OutputSize.multiple` below and at the right. A result that is no larger
                than the picture is only downsampled, unless the network restores (×1); one that is
                larger than the network's is made in two passes, as by upscaling a picture of that
                size divided by the scale.

        Raises:
            ImageError, BackendError, MemoryError: As for arrays.
        """
        return materialize(self.row_bands(picture, progress, sizing))

    def row_bands(
        self,
        picture: Picture,
        progress: ShareCallback | None = None,
        sizing: OutputSize | None = None,
    ) -> RowBands:
        """Upscale like `picture`, band by band, for results that are too large for memory.

        The network runs while the bands are read, and is locked for other calls until they are
        exhausted or closed.
        """
        height, width = picture.pixels.shape[:2]
        scale = self.info.scale
        sizing = (sizing or OutputSize()).for_network(scale)
        target = sizing.uncropped(height, width)
        twice = target[0] > scale * height or target[1] > scale * width
        row_bands = (self._two_passes if twice else self._one_pass)(picture, progress, target)
        return crop_bands(row_bands, *sizing.result(height, width))

    def _two_passes(
        self, picture: Picture, progress: ShareCallback | None, target: tuple[int, int]
    ) -> RowBands:
        between = halfway(*target, self.info.scale)
        first = picture.pixels.shape[0] * picture.pixels.shape[1]
        share = first / (first + between[0] * between[1])  # of the work

        def bands() -> Iterator[Picture]:
            smaller = materialize(self._one_pass(picture, _part(progress, 0, share), between))
            second = self._one_pass(smaller, _part(progress, share, 1 - share), target)
            with closing(second):
                yield from second.bands

        like = replace(as_row_bands(picture), height=target[0], width=target[1], bands=bands())
        held = between[0] * between[1] * like.samples * like.dtype.itemsize
        return replace(like, separate_alpha=self.separate_alpha, held=held)

    def _one_pass(
        self, picture: Picture, progress: ShareCallback | None, target: tuple[int, int]
    ) -> RowBands:
        (height, width), scale = picture.pixels.shape[:2], self.info.scale
        runs = scale == 1 or target[0] > height or target[1] > width
        if self.normal_map:
            picture = usable(picture)
        outwards = self.normal_map and points_outwards(picture)
        margin = 0
        if self._border is not None:
            margin = self._policy.margin
            picture = extended(picture, self._border, margin)
        row_bands = self._upscaled(picture, progress) if runs else as_row_bands(picture)
        margin *= scale if runs else 1
        row_bands = replace(row_bands, separate_alpha=self.separate_alpha)
        row_bands = downsample_bands(row_bands, *target, margin)
        return normalised(row_bands, outwards=outwards) if self.normal_map else row_bands

    def _upscaled(self, picture: Picture, progress: ShareCallback | None) -> RowBands:
        height, width = (side * self.info.scale for side in picture.pixels.shape[:2])
        bands = self._picture_bands(picture.pixels, picture.alpha, progress)
        return replace(as_row_bands(picture), height=height, width=width, bands=bands)

    def _picture_bands(
        self, pixels: Array, alpha: Array | None, progress: ShareCallback | None
    ) -> Iterator[Picture]:
        visible = pixels if self.separate_alpha else without_hidden_colour(pixels, alpha)
        neutral = not self.normal_map and is_neutral(visible)
        arrays = [visible[..., 0] if neutral else visible]
        if alpha is not None and not (alpha == alpha.flat[0]).all():
            arrays.append(alpha)
        top = 0
        with closing(self._bands(arrays, progress)) as bands:
            for upscaled, *others in bands:
                large = np.repeat(upscaled[..., None], 3, axis=2) if neutral else upscaled
                yield Picture(large, self._alpha(others, alpha, large, top))
                top += len(large)

    def _alpha(
        self, bands: Sequence[Array], alpha: Array | None, like: Array, top: int
    ) -> Array | None:
        """Return a band of alpha: upscaled, or filled with the constant value."""
        if alpha is None:
            return None
        if not bands:
            return np.full(like.shape[:2], alpha.flat[0], alpha.dtype)
        return bands[0] if self.separate_alpha else bounded(bands[0], alpha, top)

    def _bands(
        self, arrays: Sequence[Array], progress: ShareCallback | None
    ) -> Generator[list[Array], None, None]:
        """Yield bands of upscaled arrays; the network is locked until the end."""
        with self._backend.turn:
            tile, halo = self._policy.tiling_for(arrays)
            seams = Seams() if self._policy.blends(halo) else None
            large = upscaled_bands(self._backend, arrays, tile, halo, progress, seams)
            with closing(large) as bands:
                yield from bands
        if seams is not None:
            self._policy.note_seams(seams)


def _part(progress: ShareCallback | None, start: float, share: float) -> ShareCallback | None:
    """Return the callback for a part of the work."""
    return None if progress is None else lambda done: progress(start + share * done)
