"""Index of a weights file, read without torch: which tensors it declares, and whether they fit.

A ``.pth`` file is a pickle, which could run code. `agsr.engines.community.plain_pickle` unpickles
it with stand-ins. What it declares is then compared with what the file holds, so that a lie about a
size is found before anything is allocated. The network itself is loaded afterwards, by
`agsr.engines.community.loader`.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from agsr.assembly.safetensors_file import safetensors_header
from agsr.engines.community.plain_pickle import MOST_PICKLED, Index, product, tensors
from agsr.errors import ModelError
from agsr.system.file_kind import HEAD, PICKLE, ZIP, describe, is_torch
from agsr.system.text import in_words

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number at the beginning of files that torch wrote before 1.6."""

_SAFE_BYTES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2},
    **{"U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}


def read_index(path: Path) -> None:
    """Read which tensors a weights file declares, and check that the file can hold them.

    Raises:
        ModelError: It is another kind of file, is truncated or damaged, declares sizes that it
            doesn't have, or wants to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(HEAD)
            file.seek(0)
            if path.suffix == ".safetensors":
                _safetensors(path, start)
            elif start.startswith(ZIP):
                _zip(file, path)
            else:
                _legacy(file, start, path)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None


def _safetensors(path: Path, start: bytes) -> None:
    header = safetensors_header(path)
    if header is None:
        rename = "; rename it to .pth" if is_torch(start) else ""
        raise ModelError(f"{path}: not a safetensors file but {describe(start)}{rename}")
    held, entries = header
    declared = [entry for name, entry in entries.items() if name != "__metadata__"]
    try:
        sizes = [(_SAFE_BYTES[e["dtype"]], e["shape"], e["data_offsets"]) for e in declared]
        for size, shape, (begin, end) in sizes:
            if not 0 <= begin <= end <= held or size * product(shape) != end - begin:
                raise ModelError(
                    f"{path}: truncated or damaged: it declares tensors beyond its {held} bytes"
                )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: invalid header: {in_words(error)}") from None


def _zip(file: IO[bytes], path: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
                raise ModelError(
                    f"{path}: a TorchScript file, which is code; it is not run. Use the project's "
                    ".pth, .safetensors or .onnx file"
                )
            pickles = [e for e in entries if e.filename.endswith("/data.pkl")]
            if not pickles:
                raise ModelError(f"{path}: a ZIP archive, not a file of PyTorch weights; unpack it")
            stored = {entry.filename: entry.file_size for entry in entries}
            if _is_odd(entries):
                raise ModelError(f"{path}: torch writes no such file: packed or repeated entries")
            pickled = pickles[0]
            if sum(stored.values()) > path.stat().st_size:
                raise ModelError(f"{path}: torch writes no such file: entries that overlap")
            if pickled.file_size > MOST_PICKLED:
                raise ModelError(f"{path}: its index has {pickled.file_size} bytes; rejected")
            folder = pickled.filename.removesuffix("data.pkl") + "data/"
            with archive.open(pickled) as content:
                index = Index(content, path)
                state = index.load()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path}: truncated or damaged: {in_words(error)}") from None
    for storage in index.storages.values():
        held = stored.get(folder + storage.key)
        if held != storage.size:
            raise ModelError(
                f"{path}: truncated or damaged: tensor data {storage.key!r} has {held} bytes, "
                f"declared {storage.size}"
            )
    _check_tensors(state, path)


def _is_odd(entries: list[zipfile.ZipInfo]) -> bool:
    """Return True if torch may read an archive otherwise than this check.

    torch reads ``data.pkl`` in the folder of the first entry, and finds names in any case; Python
    ends a name at its first zero byte.
    """
    names = [entry.filename for entry in entries]
    folders = {name.partition("/")[0] for name in names}
    lowered = [name.casefold() for name in names]
    pickles = [name for name in names if name.casefold().endswith("/data.pkl")]
    return (
        len(folders) > 1
        or len(set(lowered)) < len(lowered)
        or pickles != [names[0].partition("/")[0] + "/data.pkl"]
        or any(e.filename != e.orig_filename for e in entries)
        or any(e.compress_type or e.compress_size != e.file_size for e in entries)
    )


def _legacy(file: IO[bytes], start: bytes, path: Path) -> None:
    """Read a file that torch wrote before 1.6: pickles, then the values of every tensor."""
    if not start.startswith(PICKLE):
        is_safe = safetensors_header(path) is not None
        found = "a safetensors file; rename it to .safetensors" if is_safe else describe(start)
        raise ModelError(f"{path}: not a file of PyTorch weights but {found}")
    if _is_tar(file):  # torch tries that first, and would read other pickles than those below
        raise ModelError(f"{path}: torch writes no such file: a pickle that is a tar archive too")
    index = Index(file, path)
    if index.load() != _LEGACY:
        raise ModelError(f"{path}: a pickle, but not one of PyTorch weights; rejected")
    index.load(), index.load()  # version, machine
    state = index.load()
    keys = index.load()
    needed = sum(8 + storage.size for storage in index.storages.values())
    held = path.stat().st_size - file.tell()
    if not _are_keys(keys, index.storages) or needed != held:
        raise ModelError(
            f"{path}: truncated or damaged: {held} bytes of tensors, declared {needed}"
        )
    _check_tensors(state, path)


def _is_tar(file: IO[bytes]) -> bool:
    """Return True if a file, which is open at its start, begins with a tar header."""
    try:
        tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    finally:
        file.seek(0)
    return True


def _are_keys(keys: Any, storages: Collection[str]) -> bool:
    """Return True if a list has the key of each storage once: torch reads values by this list."""
    if not isinstance(keys, list) or any(type(key) not in (str, int) for key in keys):
        return False
    return sorted(map(str, keys)) == sorted(storages)


def _check_tensors(state: Any, path: Path) -> None:
    """Reject an unpickled file without tensors."""
    if next(tensors(state), None) is None:
        raise ModelError(f"{path}: holds no tensors, so it isn't weights of a network")
