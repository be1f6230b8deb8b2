"""`Upscaler`: an image in, an image four times as large out; tiles, types, grey and alpha included.

Data flow: picture → arrays of colour and alpha → bands of enlarged rows (`agsr.engines.tiled`) →
`Stripes` → shrunk to the size that is asked for → a picture, or on to the encoder.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from types import TracebackType
from typing import Any, overload

import numpy as np
from PIL import Image

from agsr.backend import Backend, BackendInfo
from agsr.contract import SCALE
from agsr.engines.open import open_backend
from agsr.engines.tile_policy import TileChoice
from agsr.engines.tiled import Array, Progress, enlarged_bands
from agsr.image.arrays import upscaled_array
from agsr.image.ops.alpha import bounded, without_hidden_colour
from agsr.image.ops.neutral import is_neutral
from agsr.image.ops.normal_map import normalised, points_outwards, usable
from agsr.image.ops.output_size import OutputSize, halfway
from agsr.image.ops.padding import BORDERS, Border, extended
from agsr.image.ops.resample import shrunk_stripes
from agsr.image.picture import Picture, Stripes, gathered, in_stripes
from agsr.image.pillow_io import upscaled_pillow
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.tiling import DEFAULT_HALO


class Upscaler:
    """Upscales images by four.

    >>> from agsr import Upscaler
    >>> with Upscaler("psnr", steps=4) as upscaler:  # doctest: +SKIP
    ...     large = upscaler(image)

    One may be used from several threads; they take turns at the network, image by image.

    Args:
        weights: A shipped name, or the path of an ``.onnx`` or ``.safetensors`` file.
        backend: One of `agsr.engines.open.BACKENDS`, or a loaded `Backend`, which is not
            closed.
        steps: Time steps of the recurrent attention loop; None means those of the file, or 4.
        tile: Side of a tile in LR pixels; 0 for none, ``"auto"`` to cut large images only, in tiles
            that fit into the memory that is free.
        halo: LR pixels read around a tile; ``"exact"`` for the network's receptive radius, which
            makes the result that of the whole image.
        border: What the halo shows beyond the image: ``"mirror"`` the image mirrored, for flat
            graphics; ``"wrap"`` its far side, for textures that tile; None nothing, as in training,
            but for data ``"mirror"``.
        separate_alpha: Alpha is no opacity but data, like gloss or height: colour under 0 stays,
            and alpha is enlarged as a grey picture is.
        normal_map: Images are tangent-space normal maps: results have vectors of unit length, and
            z where an image has x and y only. What is in their alpha is data, too.
        options: Further arguments of `agsr.engines.open.open_backend`.

    Raises:
        AgsrError: The network can't be loaded; the message says what to do.
        TypeError: There is no such argument, or a loaded backend is to have other steps or options.
    """

    def __init__(
        self,
        weights: str = DEFAULT_WEIGHTS,
        *,
        backend: str | Backend = "auto",
        steps: int | None = None,
        tile: int | str = "auto",
        halo: int | str = DEFAULT_HALO,
        border: Border | None = None,
        separate_alpha: bool = False,
        normal_map: bool = False,
        **options: Any,
    ) -> None:
        _check_size("tile", tile, "auto")
        _check_size("halo", halo, "exact")
        if border not in (None, *BORDERS):
            raise ValueError(f"border is {border!r}; expected None or one of {BORDERS}")
        if border is not None and halo == 0:
            raise ValueError("a border needs a halo to show it, and that is 0")
        _check_options(options, loaded=not isinstance(backend, str), steps=steps)
        self._border = border
        if border is None and halo != 0 and (separate_alpha or normal_map):
            self._border = "mirror"  # in data, what zeros do at the border is no matter of taste
        self.normal_map = normal_map
        """Whether images are normal maps."""
        self.separate_alpha = separate_alpha or normal_map
        """Whether alpha is data."""
        self._turn = threading.Lock()
        self._owned = isinstance(backend, str)
        self._backend = (
            open_backend(backend, weights, steps=steps, **options)
            if isinstance(backend, str)
            else backend
        )
        if self._owned:
            self._closing = weakref.finalize(self, self._backend.close)
            self._closing.atexit = False  # backends end by themselves, whoever has their turn
        self._choice = TileChoice(self._backend, tile, halo)

    @property
    def info(self) -> BackendInfo:
        """What really runs."""
        return self._backend.info

    @property
    def shows_halo(self) -> bool:
        """Whether the halo has made a difference: an image was cut, or has a border to show."""
        return self._choice.has_cut or self._border is not None

    @property
    def tiling(self) -> tuple[int | str, int | str, Border | None]:
        """Tile, halo and border as asked for."""
        return (*self._choice.asked, self._border)

    @overload
    def __call__(
        self,
        image: Array,
        progress: Progress | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        image: Image.Image,
        progress: Progress | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Image.Image: ...

    def __call__(
        self,
        image: Array | Image.Image,
        progress: Progress | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Array | Image.Image:
        """Upscale an array or a Pillow image.

        Args:
            image: ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA, ``(H, W)`` or ``(H, W, 1)`` grey, or
                ``(H, W, 2)`` grey with alpha, not multiplied by it; uint8, uint16, or floats in
                [0, 1], which are computed in float32. Or a Pillow image of any mode of 8 bits per
                channel, or I;16.
            progress: Called after each tile with the share that is done, 0 to 1.
            scale: Output pixels per input pixel along each axis, above 0, at most 16. Default: 4.
            size: Largest width and height; the result fits inside, with the image's proportions.

        Returns:
            ``(4H, 4W[, C])``, or the size asked for, of the same type; floats are not clipped. For
            a Pillow image, another of mode L, LA, RGB, RGBA or I;16, upright as its EXIF asks
            for, with its profile, EXIF, XMP and resolution.

        Raises:
            ImageError: The array has another shape or type, floats far outside of [0, 1] or NaN, or
                the image has another mode.
            BackendError: The backend failed.
            MemoryError: Even the smallest tiles do not fit.
            ValueError: The scale or the size is out of range, or both are given.
            TypeError: The scale is no number, or the size no pair of whole numbers.
        """
        if scale is not None and size is not None:
            raise ValueError(f"scale is {scale!r} and size {size!r}; expected one of them")
        sizing = OutputSize(scale=SCALE if scale is None else scale, box=size)

        def upscale(picture: Picture) -> Picture:
            return self.picture(picture, progress, sizing)

        if isinstance(image, Image.Image):
            return upscaled_pillow(image, upscale)
        return upscaled_array(image, upscale)

    def picture(
        self, picture: Picture, progress: Progress | None = None, sizing: OutputSize | None = None
    ) -> Picture:
        """Upscale a decoded file: its pixels, and its alpha unless that is constant.

        Args:
            picture: Pixels, alpha and metadata; the latter stays.
            progress: As for arrays.
            sizing: Size of the result, where it is not four times that of the picture. What needs
                no enlarging is only shrunk; what is larger is made in two passes, as by upscaling
                a picture of a quarter of that size.

        Raises:
            ImageError, BackendError, MemoryError: As for arrays.
        """
        return gathered(self.stripes(picture, progress, sizing))

    def stripes(
        self, picture: Picture, progress: Progress | None = None, sizing: OutputSize | None = None
    ) -> Stripes:
        """`picture` band by band, for results that are too large for memory.

        The network runs while the bands are taken, and nobody else's call gets it until they are
        at their end or closed.
        """
        height, width = picture.pixels.shape[:2]
        target = (sizing or OutputSize()).result(height, width)
        if target[0] > SCALE * height or target[1] > SCALE * width:
            return self._in_two_passes(picture, progress, target)
        return self._in_one_pass(picture, progress, target)

    def _in_two_passes(
        self, picture: Picture, progress: Progress | None, target: tuple[int, int]
    ) -> Stripes:
        between = halfway(*target)
        first = picture.pixels.shape[0] * picture.pixels.shape[1]
        share = first / (first + between[0] * between[1])  # of the work

        def bands() -> Iterator[Picture]:
            smaller = gathered(self._in_one_pass(picture, _part(progress, 0, share), between))
            second = self._in_one_pass(smaller, _part(progress, share, 1 - share), target)
            with closing(second):
                yield from second.bands

        like = replace(in_stripes(picture), height=target[0], width=target[1], bands=bands())
        held = between[0] * between[1] * like.samples * like.dtype.itemsize
        return replace(like, separate_alpha=self.separate_alpha, held=held)

    def _in_one_pass(
        self, picture: Picture, progress: Progress | None, target: tuple[int, int]
    ) -> Stripes:
        height, width = picture.pixels.shape[:2]
        larger = target[0] > height or target[1] > width
        if self.normal_map:
            picture = usable(picture)
        outwards = self.normal_map and points_outwards(picture)
        margin = 0
        if self._border is not None:
            margin = self._choice.margin
            picture = extended(picture, self._border, margin)
        stripes = self._enlarged(picture, progress) if larger else in_stripes(picture)
        margin *= SCALE if larger else 1
        stripes = replace(stripes, separate_alpha=self.separate_alpha)
        stripes = shrunk_stripes(stripes, *target, margin)
        return normalised(stripes, outwards=outwards) if self.normal_map else stripes

    def close(self) -> None:
        """Release the backend, if it was opened here."""
        if self._owned:
            self._closing()

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _enlarged(self, picture: Picture, progress: Progress | None) -> Stripes:
        height, width = (side * SCALE for side in picture.pixels.shape[:2])
        bands = self._picture_bands(picture.pixels, picture.alpha, progress)
        return replace(in_stripes(picture), height=height, width=width, bands=bands)

    def _picture_bands(
        self, pixels: Array, alpha: Array | None, progress: Progress | None
    ) -> Iterator[Picture]:
        shown = pixels if self.separate_alpha else without_hidden_colour(pixels, alpha)
        neutral = not self.normal_map and is_neutral(shown)
        arrays = [shown[..., 0] if neutral else shown]
        if alpha is not None and not (alpha == alpha.flat[0]).all():
            arrays.append(alpha)
        top = 0
        with closing(self._bands(arrays, progress)) as bands:
            for enlarged, *others in bands:
                large = np.repeat(enlarged[..., None], 3, axis=2) if neutral else enlarged
                yield Picture(large, self._alpha(others, alpha, large, top))
                top += len(large)

    def _alpha(
        self, bands: Sequence[Array], alpha: Array | None, like: Array, top: int
    ) -> Array | None:
        """A band of alpha: the enlarged one, or more of a constant."""
        if alpha is None:
            return None
        if not bands:
            return np.full(like.shape[:2], alpha.flat[0], alpha.dtype)
        return bands[0] if self.separate_alpha else bounded(bands[0], alpha, top)

    def _bands(
        self, arrays: Sequence[Array], progress: Progress | None
    ) -> Generator[list[Array], None, None]:
        """Bands of enlarged arrays; the network is this caller's until the end."""
        with self._turn:
            tiling = self._choice.of(arrays)
            with closing(enlarged_bands(self._backend, arrays, *tiling, progress)) as bands:
                yield from bands


def _part(progress: Progress | None, start: float, share: float) -> Progress | None:
    """Progress of a part of the work."""
    return None if progress is None else lambda done: progress(start + share * done)


def _check_options(options: Mapping[str, Any], *, loaded: bool, steps: int | None) -> None:
    known = inspect.signature(open_backend).parameters
    if unknown := [name for name in options if name not in known]:
        raise TypeError(
            f"Upscaler() got an unexpected keyword argument {unknown[0]!r}{_advice(unknown[0])}"
        )
    if loaded and (options or steps is not None):
        asked = [*options, *(["steps"] if steps is not None else [])]
        raise TypeError(f"a loaded backend keeps what it was loaded with; leave out {asked[0]}")


def _advice(name: str) -> str:
    """What to write in place of an argument that `Upscaler` lacks, if that is known."""
    if name in _SIZES:
        return (
            "; it belongs to the call, as in upscaler(image, scale=2) "
            "or upscaler(image, size=(1920, 1080))"
        )
    own = inspect.signature(Upscaler).parameters.keys() - {"options"}
    close = get_close_matches(name, [*own, *inspect.signature(open_backend).parameters], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


_SIZES = ("scale", "outscale", "factor", "size", "max_size", "sizing")


def _check_size(name: str, value: int | str, word: str) -> None:
    if value != word and (isinstance(value, str) or value < 0):
        raise ValueError(f"{name} is {value!r}; expected '{word}' or a number from 0")
