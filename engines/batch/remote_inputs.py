"""Find the files of a batch on servers: addresses of files, folders and patterns to `Input`.

A folder costs one listing; a file with a known ending costs no request before it is read.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from agsr.engines.batch.found import Input, Skipped, is_ignored_folder
from agsr.image.unsupported import ENDINGS
from agsr.store.address import WEB, Address, Location
from agsr.store.listing import Listings, matches
from agsr.video.formats import READABLE as MEDIA


def remote_inputs(
    source: Address,
    recursive: bool,
    output: Location | None,
    wanted: frozenset[str],
    listings: Listings,
    on_unsupported: Callable[[Location], object],
    on_skipped: Callable[[Skipped], object],
) -> Iterator[Input]:
    """Yield the files that an address means; nothing for an empty folder.

    Args:
        source: A file, a folder (with ``recursive``), or a pattern.
        recursive: As for `agsr.engines.batch.inputs.find`, like the following.
        output: Folder for the results, which is not searched.
        wanted: File name endings to read from folders.
        listings: Lists folders.
        on_unsupported: Called with each image whose format is not supported.
        on_skipped: Called with every hidden file with a wanted ending.
    """
    known = source.suffix.lower() in wanted | set(ENDINGS) | set(MEDIA)
    pattern = source.scheme not in WEB and glob.has_magic(source.key)
    if source.is_folder and not recursive:
        problem = f"{source}/: a folder; add -r to upscale the images in it"
        yield Input(source, problem=problem, is_request=True)
    elif pattern:
        yield from _matching(source, wanted, listings)
    elif source.is_folder or (recursive and not known and source.scheme not in WEB):
        skip = output if isinstance(output, Address) and output != source else None
        yield from _below(source, skip, wanted, listings, on_unsupported, on_skipped)
    else:
        yield Input(source)


def _below(
    folder: Address,
    output: Address | None,
    wanted: frozenset[str],
    listings: Listings,
    on_unsupported: Callable[[Location], object],
    on_skipped: Callable[[Skipped], object],
) -> Iterator[Input]:
    try:
        keys = sorted(listings.files(folder))
    except OSError as error:
        yield Input(folder, problem=f"{folder}: can't be listed: {error.strerror}")
        return
    for key in keys:
        file = Address(folder.scheme, folder.host, key)
        if file == folder:
            yield Input(file)
            continue
        below = PurePosixPath(key[len(folder.key) :].lstrip("/")).parent
        if any(map(is_ignored_folder, below.parts)) or _is_in(file, output):
            continue
        ending = file.suffix.lower()
        if file.name.startswith("."):
            if ending in wanted:
                on_skipped(Skipped(file, "hidden", named=False))
        elif ending in wanted:
            yield Input(file, Path(below))
        elif ending in ENDINGS:
            on_unsupported(file)


def _is_in(file: Address, folder: Address | None) -> bool:
    if folder is None or (file.scheme, file.host) != (folder.scheme, folder.host):
        return False
    return file.key.startswith(folder.key + "/" if folder.key else "")


def _matching(pattern: Address, wanted: frozenset[str], listings: Listings) -> Iterator[Input]:
    """Yield the files that a pattern matches; one without an ending matches wanted endings only."""
    parts = pattern.key.split("/")
    literal = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    base = Address(pattern.scheme, pattern.host, "/".join(parts[:literal]), is_folder=True)
    rest = "/".join(parts[literal:])
    try:
        keys = sorted(listings.files(base))
    except OSError as error:
        yield Input(pattern, problem=f"{pattern}: can't be listed: {error.strerror}")
        return
    dotted = any(part.startswith(".") for part in parts[literal:])
    for key in keys:
        file = Address(pattern.scheme, pattern.host, key)
        below = key[len(base.key) :].lstrip("/").split("/")
        hidden = any(part.startswith(".") for part in below)
        fits = bool(pattern.suffix) or file.suffix.lower() in wanted
        ignored = any(map(is_ignored_folder, below[:-1])) and not dotted
        if fits and (dotted or not hidden) and not ignored and matches(base, key, rest):
            yield Input(file, Path())
