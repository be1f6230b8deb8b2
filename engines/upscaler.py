"""`Upscaler`: the Python API. Opens a backend, upscales arrays and Pillow images, closes it.

`agsr.engines.open` loads the network, `agsr.engines.picture_upscaler` does the work, and
`agsr.image.arrays` and `agsr.image.pillow_io` convert images.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from PIL import Image

from agsr.backend import Backend
from agsr.engines.community.tile_memory import WORTHWHILE
from agsr.engines.ensemble import SYMMETRIES, Ensemble
from agsr.engines.open import open_backend
from agsr.engines.picture_upscaler import PictureUpscaler
from agsr.engines.planes import Array
from agsr.engines.tile_policy import TilePolicy
from agsr.image.arrays import upscale_array
from agsr.image.ops.output_size import OutputSize
from agsr.image.ops.padding import BORDERS, Border
from agsr.image.picture import Picture
from agsr.image.pillow_io import upscale_pillow
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.system.progress import ShareCallback
from agsr.system.text import did_you_mean

if TYPE_CHECKING:
    from agsr.engines.tensorrt.progress import Report

__all__ = ["Upscaler"]

_CALL_ARGUMENTS = ("scale", "outscale", "factor", "size", "max_size", "sizing")
"""Names under which people look for the size of the result."""


class Upscaler(PictureUpscaler):
    """Upscales images by the network's scale, or to another size.

    >>> from agsr import Upscaler
    >>> with Upscaler("psnr", steps=4) as upscaler:  # doctest: +SKIP
    ...     large = upscaler(image)

    Thread-safe: several threads may share one; the network runs one image at a time.

    Args:
        weights: A shipped name, or the path of an ``.onnx``, ``.safetensors`` or ``.engine`` file;
            an ``.onnx`` file may be another project's.
        backend: One of `agsr.engines.places.BACKENDS`, or a loaded `Backend`, which stays open.
        steps: Time steps of the recurrent attention loop; None means those of the file, or 4.
        tile: Side of a tile in LR pixels; 0 for none, ``"auto"`` to cut only large images, into
            tiles that fit into the free memory.
        halo: LR pixels read around a tile; ``"exact"`` for the network's receptive radius, which
            gives the same result as the whole image. ``"auto"`` is `agsr.tiling.DEFAULT_HALO`; for
            networks of other projects, whose radius is unknown, it is measured when an image has
            to be cut, and cached. Tiles of a network that looks at everything are blended, and
            `seams` reports how much they differed.
        border: Content of the halo beyond the image: ``"mirror"`` for flat graphics, ``"wrap"``
            (the opposite side) for textures that tile. None means nothing, as in training, but
            ``"mirror"`` for data.
        separate_alpha: Alpha is data, like gloss or height, not opacity: colour where alpha is 0 is
            unchanged, and alpha is upscaled like a grey picture.
        normal_map: Images are tangent-space normal maps: results have vectors of unit length, and
            z where an image has only x and y. Their alpha is data, too.
        provider: See `agsr.engines.open.open_backend`.
        device: See `agsr.engines.open.open_backend`.
        precision: See `agsr.engines.open.open_backend`.
        threads: See `agsr.engines.open.open_backend`.
        hints: See `agsr.engines.open.open_backend`.
        url: See `agsr.engines.open.open_backend`.
        progress: See `agsr.engines.open.open_backend`.
        allow_fallback: See `agsr.engines.open.open_backend`.
        work: See `agsr.engines.open.open_backend`.
        tta: Test-time ensemble: average the results of all turns and mirrorings of an image, which
            takes eight times as long (`agsr.engines.ensemble`).

    Raises:
        AgsrError: The network can't be loaded; the message says what to do.
        TypeError: An argument is unknown, or a loaded backend is given other steps or options.
        ValueError: The tile, halo or border is out of range.
    """

    def __init__(
        self,
        weights: str = DEFAULT_WEIGHTS,
        *,
        backend: str | Backend = "auto",
        steps: int | None = None,
        tile: int | Literal["auto"] = "auto",
        halo: int | Literal["auto", "exact"] = "auto",
        border: Border | None = None,
        separate_alpha: bool = False,
        normal_map: bool = False,
        provider: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        hints: str = "",
        url: str | None = None,
        progress: Report | None = None,
        allow_fallback: bool = False,
        work: int | None = None,
        tta: bool = False,
        **unknown: NoReturn,
    ) -> None:
        _check_unknown(unknown)
        _check_size("tile", tile, "auto")
        _check_size("halo", halo, "auto", "exact")
        _check_border(border, halo)
        if border is None and halo != 0 and (separate_alpha or normal_map):
            border = "mirror"  # for data, darker borders are errors, not a matter of taste
        options = {
            "steps": steps,
            "provider": provider,
            "device": device,
            "precision": precision,
            "threads": threads,
            "hints": hints,
            "url": url,
            "progress": progress,
            "allow_fallback": allow_fallback,
            "work": work and work * (SYMMETRIES if tta else 1),
        }
        opened = _open(backend, weights, options)
        self._owned = opened is not backend
        opened = Ensemble(opened) if tta else opened
        super().__init__(
            opened,
            TilePolicy(opened, tile, halo),
            border,
            separate_alpha=separate_alpha,
            normal_map=normal_map,
        )
        if self._owned:
            if work is None or work >= WORTHWHILE:
                self._policy.measure_memory()
            self._closing = weakref.finalize(self, opened.close)
            self._closing.atexit = False  # at exit, backends release themselves

    @overload
    def __call__(
        self,
        image: Array,
        progress: ShareCallback | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        image: Image.Image,
        progress: ShareCallback | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Image.Image: ...

    def __call__(
        self,
        image: Array | Image.Image,
        progress: ShareCallback | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Array | Image.Image:
        """Upscale an array or a Pillow image.

        Args:
            image: ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA, ``(H, W)`` or ``(H, W, 1)`` grey, or
                ``(H, W, 2)`` grey with alpha, which is not premultiplied; uint8, uint16, or floats
                in [0, 1], which are computed in float32. Or a Pillow image of any mode of 8 bits
                per channel, or I;16.
            progress: Called after each tile with the completed share, 0 to 1.
            scale: Output pixels per input pixel along each axis, above 0, at most two passes of the
                network: 16 for a ×4 one. Default: the network's scale.
            size: Largest width and height; the result fits inside and has the image's proportions.

        Returns:
            ``(sH, sW[, C])`` with the network's scale s, or the requested size, of the same type;
            floats are not clipped. For a Pillow image, another of mode L, LA, RGB, RGBA or I;16,
            rotated as its EXIF requires, with its profile, EXIF, XMP and resolution.

        Raises:
            ImageError: The array has another shape or type, NaN, or floats far outside of [0, 1],
                or the image has another mode.
            BackendError: The backend failed.
            MemoryError: Even the smallest tiles do not fit.
            ValueError: The scale or the size is out of range, or both are given.
            TypeError: The scale is not a number, or the size not a pair of whole numbers.
        """
        if scale is not None and size is not None:
            raise ValueError(f"scale is {scale!r} and size {size!r}; expected one of them")
        sizing = OutputSize(scale=scale, box=size, network=self.info.scale)

        def upscale(picture: Picture) -> Picture:
            return self.picture(picture, progress, sizing)

        if isinstance(image, Image.Image):
            return upscale_pillow(image, upscale)
        return upscale_array(image, upscale)

    def close(self) -> None:
        """Release the backend, if it was opened here."""
        if self._owned:
            self._closing()

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(backend: str | Backend, weights: str, options: Mapping[str, Any]) -> Backend:
    """Open a backend by name; check that a loaded one is given no options."""
    if isinstance(backend, str):
        return open_backend(backend, weights, **options)
    given = [
        name for name, value in options.items() if value is not False and value not in (None, "")
    ]
    if given:
        raise TypeError(f"a loaded backend can't be changed; remove {given[0]}")
    return backend


def _check_unknown(unknown: Mapping[str, object]) -> None:
    for name in unknown:
        raise TypeError(f"Upscaler() got an unexpected keyword argument {name!r}{_advice(name)}")


def _advice(name: str) -> str:
    """Suggest a replacement for an unknown argument; empty if there is none."""
    if name in _CALL_ARGUMENTS:
        return (
            "; it belongs to the call, as in upscaler(image, scale=2) "
            "or upscaler(image, size=(1920, 1080))"
        )
    known = [known for known in inspect.signature(Upscaler).parameters if known != "unknown"]
    return f"; {did_you_mean(name, known)}".rstrip("; ")


def _check_size(name: str, value: int | str, *words: str) -> None:
    if value not in words and (isinstance(value, str) or value < 0):
        known = ", ".join(f"'{word}'" for word in words)
        raise ValueError(f"{name} is {value!r}; expected {known} or a number from 0")


def _check_border(border: str | None, halo: int | str) -> None:
    if border not in (None, *BORDERS):
        raise ValueError(f"border is {border!r}; expected None or one of {BORDERS}")
    if border is not None and halo == 0:
        raise ValueError("a border needs a halo to show it, and that is 0")
