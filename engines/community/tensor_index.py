"""Index of a weights file, read without torch: which tensors it declares, and whether they fit.

A ``.pth`` file is a pickle, which could run code. Here it is unpickled with stand-ins: only the
names of `_ALLOWED` resolve, and to nothing of torch's. What it declares is then compared with what
the file holds, so that a lie about a size is found before anything is allocated. The network itself
is loaded afterwards, by `agsr.engines.community.loader`.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agsr.errors import ModelError
from agsr.pretrained import safetensors_header
from agsr.system.text import in_words

_MOST_PICKLED = 64 << 20
"""Bytes of the largest pickle of names and shapes; that of the largest known network has 2 MB."""

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number at the beginning of files that torch wrote before 1.6."""

_ELEMENT_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
}

_SAFE_BYTES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2},
    **{"U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}

_BEGINNINGS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"RIFF": "a RIFF file, like WebP",
    b"GIF8": "a GIF image",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"%PDF": "a PDF document",
    b"<!DO": "a web page, not the download itself",
    b"<htm": "a web page, not the download itself",
    b"vers": "a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"\x08\x03": "an ONNX file",
}


def read_index(path: Path) -> None:
    """Read which tensors a weights file declares, and check that the file can hold them.

    Raises:
        ModelError: It is another kind of file, is truncated or damaged, declares sizes that it
            doesn't have, or wants to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            if path.suffix == ".safetensors":
                _safetensors(path, start)
            elif start.startswith(b"PK\x03\x04"):
                _zip(file, path)
            else:
                _legacy(file, start, path)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None


def _safetensors(path: Path, start: bytes) -> None:
    header = safetensors_header(path)
    if header is None:
        found = _kind(start)
        rename = "; rename it to .pth" if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" else ""
        raise ModelError(f"{path}: not a safetensors file but {found}{rename}")
    held, entries = header
    tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
    try:
        sizes = [(_SAFE_BYTES[e["dtype"]], e["shape"], e["data_offsets"]) for e in tensors.values()]
        for size, shape, (begin, end) in sizes:
            if not 0 <= begin <= end <= held or size * _product(shape) != end - begin:
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
            pickled = next((e for e in entries if e.filename.endswith("/data.pkl")), None)
            if pickled is None:
                raise ModelError(f"{path}: a ZIP archive, not a file of PyTorch weights; unpack it")
            stored = {entry.filename: entry.file_size for entry in entries}
            # torch reads the folder of the first entry, and finds names in any case.
            folders = {name.partition("/")[0] for name in names}
            is_odd = len({name.casefold() for name in names}) < len(names) or len(folders) > 1
            if is_odd or any(e.compress_type or e.compress_size != e.file_size for e in entries):
                raise ModelError(f"{path}: torch writes no such file: packed or repeated entries")
            if sum(stored.values()) > path.stat().st_size:
                raise ModelError(f"{path}: torch writes no such file: entries that overlap")
            if pickled.file_size > _MOST_PICKLED:
                raise ModelError(f"{path}: its index has {pickled.file_size} bytes; rejected")
            folder = pickled.filename.removesuffix("data.pkl") + "data/"
            with archive.open(pickled) as content:
                index = _Index(content, path)
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


def _legacy(file: IO[bytes], start: bytes, path: Path) -> None:
    """Read a file that torch wrote before 1.6: pickles, then the values of every tensor."""
    if start[:1] != b"\x80":
        header = "a safetensors file; rename it to .safetensors" if _is_safe(path) else _kind(start)
        raise ModelError(f"{path}: not a file of PyTorch weights but {header}")
    index = _Index(file, path)
    if index.load() != _LEGACY:
        raise ModelError(f"{path}: a pickle, but not one of PyTorch weights; rejected")
    index.load(), index.load()  # version, machine
    state = index.load()
    keys = index.load()
    needed = sum(8 + storage.size for storage in index.storages.values())
    held = path.stat().st_size - file.tell()
    if not isinstance(keys, list) or needed > held:
        raise ModelError(
            f"{path}: truncated or damaged: {held} bytes of tensors, declared {needed}"
        )
    _check_tensors(state, path)


@dataclass(frozen=True)
class _Storage:
    """Values that tensors view."""

    key: str
    count: int
    size: int


class _Tensor:
    """Stand-in for a tensor."""


class _Index(pickle.Unpickler):
    """Unpickles with stand-ins for torch's types; any other name is an error."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """Read one pickle.

        Raises:
            ModelError: It is damaged or wants to run code.
        """
        try:
            return super().load()
        except ModelError:
            raise
        except Exception as error:  # a damaged pickle raises nearly anything
            raise ModelError(f"{self._path}: truncated or damaged: {in_words(error)}") from None

    def find_class(self, module: str, name: str) -> Any:
        """Resolve an allowed name to its stand-in."""
        if name == "OrderedDict" and module in ("collections", "typing"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in _ELEMENT_BYTES:
            return _StorageType(name)
        raise ModelError(
            f"{self._path}: wants to load {module}.{name}, which is not part of plain weights; "
            "rejected, since it may run code. Save the weights alone: "
            "torch.save(network.state_dict(), 'weights.pth')"
        )

    def persistent_load(self, identity: Any) -> _Storage:
        """Register the values that a tensor views."""
        kind, storage_type, key, _, count = identity[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise ValueError("unknown reference")
        if not isinstance(count, int) or count < 0:
            raise ValueError("a size below 0")
        storage = _Storage(str(key), count, count * _ELEMENT_BYTES[storage_type.name])
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError("two sizes for the same values")
        return storage

    def _tensor(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: Any, *_: Any
    ) -> _Tensor:
        elements = _product(shape)
        if offset < 0 or len(stride) != len(shape) or offset + elements > storage.count:
            raise ValueError(f"a tensor of {elements} values in {storage.count}")
        return _Tensor()


@dataclass(frozen=True)
class _StorageType:
    name: str


def _check_tensors(state: Any, path: Path) -> None:
    """Reject an unpickled file without tensors."""
    if next(_tensors(state), None) is None:
        raise ModelError(f"{path}: holds no tensors, so it isn't weights of a network")


def _tensors(state: Any, depth: int = 4) -> Iterator[_Tensor]:
    if isinstance(state, _Tensor):
        yield state
    elif isinstance(state, Mapping) and depth:
        for value in state.values():
            yield from _tensors(value, depth - 1)


def _product(shape: Any) -> int:
    # A side of 0 would cost the file nothing, while networks derive sizes from the others.
    if any(not isinstance(side, int) or side < 1 for side in shape):
        raise ValueError("a side below 1")
    return math.prod(shape)


def _is_safe(path: Path) -> bool:
    return safetensors_header(path) is not None


def _kind(start: bytes) -> str:
    """Describe a file by its beginning."""
    if not start:
        return "an empty file"
    if start.startswith(b"PK\x03\x04"):
        return "a ZIP archive, as torch writes"
    if start[:1] == b"\x80":
        return "a pickle"
    kinds = (kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning))
    return next(kinds, f"an unknown one, which begins with {json.dumps(start.decode('latin-1'))}")
