"""Preflight checks: is the output writable, and is there enough memory and disk space?

The batch runner calls `check_picture_target` before the network runs and `check_result` as soon as
the result's size and type are known; `agsr.engines.video` calls `check_video_target`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from agsr.engines.tile_policy import BANDS_HELD
from agsr.errors import ImageError, ImageTooLargeError, VideoError
from agsr.image.encode import FORMATS, Format, check_alpha, check_size
from agsr.image.picture import RowBands
from agsr.store.address import Location
from agsr.store.locations import check_writable, free_space, is_same_file
from agsr.system.memory import free_memory
from agsr.tiling import AUTO_SMALLEST

_ALWAYS = 1 << 26
"""Bytes that are so few that they are not checked."""

_log = logging.getLogger(__name__)


def check_picture_target(
    source: Location | None,
    target: Location | None,
    name: str,
    suffix: str,
    size: tuple[int, int],
    max_pixels: int | None = None,
) -> None:
    """Check that a format holds a result of this size, and that its file can be written.

    Args:
        source: A file, or None for stdin.
        target: The result; None for stdout.
        name: Name of the source, for messages.
        suffix: Suffix of the format.
        size: Height and width of the result, pixels.
        max_pixels: Results with more pixels are rejected; None for no limit.

    Raises:
        ImageError: It can't be written, would replace its source or has too long sides.
        ImageTooLargeError: It has more than ``max_pixels``.
    """
    height, width = size
    if max_pixels is not None and height * width > max_pixels:
        raise ImageTooLargeError(
            f"{name}: the result would have {width}x{height} pixels, more than {max_pixels}; ask "
            "for a smaller scale or size",
            path=name,
            limit=max_pixels,
            found=height * width,
        )
    check_size(name, suffix, *size)
    if target is not None:
        check_target(source, target)


def check_video_target(source: Path | None, target: Path) -> None:
    """Check that a video can be written, and warn if the disk is too full.

    Args:
        source: A file, or None for a stream.
        target: The result.

    Raises:
        VideoError: It can't be written, or would replace its source.
    """
    try:
        check_target(source, target)
    except ImageError as error:
        raise VideoError(str(error)) from None
    if source is not None:
        check_disk_of_video(source, target)


def check_result(
    name: str,
    target: Location | None,
    suffix: str,
    row_bands: RowBands,
    wait: Callable[[], object] = lambda: None,
    *,
    scale: int,
) -> None:
    """Check that the format holds a result's alpha, and that memory and disk hold the result.

    Args:
        name: Name of the source, for messages.
        target: The result; None for stdout.
        suffix: Suffix of the format.
        row_bands: The result, not yet computed.
        wait: As for `check_memory`.
        scale: As for `check_memory`.

    Raises:
        ImageError: The format has no alpha, or memory or disk are too small.
    """
    check_alpha(name, suffix, row_bands)
    check_memory(name, suffix, row_bands, wait, scale=scale)
    if target is not None:
        check_disk(target, suffix, row_bands)


def check_target(source: Location | None, target: Location) -> None:
    """Check that a result can be written, and would not replace its own source.

    Args:
        source: A file, or None for stdin.
        target: The result.

    Raises:
        ImageError: It can't be written, or would replace its source.
    """
    try:
        # By any name: through a hard link, or where upper and lower case are the same.
        if is_same_file(source, target):
            raise ImageError(f"{source}: {target} is the same file; use -o or --suffix")
        check_writable(target)
    except OSError as error:
        raise ImageError(f"{target}: can't be written: {error.strerror}") from None


def check_memory(
    name: str,
    suffix: str,
    row_bands: RowBands,
    wait: Callable[[], object] = lambda: None,
    *,
    scale: int,
) -> None:
    """Reject a result that does not fit into the memory.

    Args:
        name: Name of the file, for messages.
        suffix: Suffix of the format.
        row_bands: The result.
        wait: Called if there is too little memory; waits for other work to free some.
        scale: Scale of the network that computes it.

    Raises:
        ImageTooLargeError: There is too little even then.
    """
    form = FORMATS[suffix.lower()]
    needed = memory_needed(form, row_bands, scale)
    if needed < _ALWAYS or needed <= free_memory():
        return
    wait()
    free = free_memory()
    if needed <= free:
        return
    size = f"{row_bands.width}x{row_bands.height}"
    way = "PNG or TIFF, which are written in bands; or " if form.memory else ""
    way += f"two commands, like --scale {scale} and then the rest; or " if row_bands.held else ""
    raise ImageTooLargeError(
        f"{name}: a result of {size} pixels takes {needed} bytes of memory as {form.name}, and "
        f"{free} are free; use {way}a smaller result (--max-size)",
        path=name,
        limit=free,
        found=needed,
    )


def memory_needed(form: Format, row_bands: RowBands, scale: int) -> int:
    """Return the bytes of main memory that a result needs, beside its input and the network."""
    rows = AUTO_SMALLEST * scale * BANDS_HELD
    bands = row_bands.nbytes * min(rows, row_bands.height) // row_bands.height
    return bands + (form.memory or 0) * row_bands.height * row_bands.width + row_bands.held


def check_disk_of_video(source: Path, target: Path) -> None:
    """Warn if free disk space is less than the size of the source; results are larger."""
    if not source.is_file():
        return
    size = source.stat().st_size
    free = free_space(target)
    if size > free:
        _log.warning(
            "%s: %d bytes are free on its disk, and its source alone has %d", target, free, size
        )


def check_disk(target: Location, suffix: str, row_bands: RowBands) -> None:
    """Raise or warn if the disk is too full; a replaced file needs its space until the end.

    Raises:
        ImageTooLargeError: The result will not fit, however well it can be compressed.
    """
    form = FORMATS[suffix.lower()]
    free = free_space(target)
    raw = form.stored_bytes(row_bands)
    if raw * form.least_share > free:
        least = int(raw * form.least_share)
        raise ImageTooLargeError(
            f"{target}: the file would have {least} bytes at least, and {free} are free on its "
            "disk",
            path=str(target),
            limit=free,
            found=least,
        )
    if raw * form.usual_share > free:
        _log.warning(
            "%s: the file may have %d bytes, and %d are free on its disk",
            *(target, int(raw * form.usual_share), free),
        )
