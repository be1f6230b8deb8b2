"""Unpickle the index of a ``.pth`` file with stand-ins: names, shapes and sizes, no code.

The unpickler is Python's own one in Python, as torch's for plain weights is: unlike the one in C it
lets every dictionary key be checked, and no number in the file decides how much memory it uses. A
file whose loading takes time or memory beyond its size is rejected here, so that no other unpickler
ever sees it.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from agsr.errors import ModelError
from agsr.system.text import in_words

MOST_PICKLED = 8 << 20
"""Bytes of the largest pickle of names and shapes; that of the largest known network has 2 MB."""

_MOST_AXES = 8
"""Axes of a tensor; those of networks have up to five."""

_LARGEST_SIDE = 1 << 48

_ELEMENT_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
}


_USUAL: dict[int, Callable[[Any], None]] = dict(pickle._Unpickler.dispatch)
"""Python's own functions by operation."""


@dataclass(frozen=True)
class Storage:
    """Values that tensors view."""

    key: str
    """Its name in the file."""
    count: int
    """Number of values."""
    size: int
    """Bytes."""


class Tensor:
    """Stand-in for a tensor."""


@dataclass(frozen=True)
class _StorageType:
    name: str


class _Bounded:
    """A file of which at most `MOST_PICKLED` bytes are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, MOST_PICKLED

    def read(self, size: int) -> bytes:
        return self._counted(self._file.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"its index has more than {MOST_PICKLED} bytes")
        return content


class Index(pickle._Unpickler):
    """Unpickles with stand-ins for torch's types; any other name is an error.

    Args:
        file: Read up to the end of the pickle, which has at most `MOST_PICKLED` bytes.
        path: Its name, for messages.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_USUAL)
    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._source = file
        self._path = path
        self.storages: dict[str, Storage] = {}

    def load(self) -> Any:
        """Read one pickle.

        Raises:
            ModelError: It is damaged or wants to run code.
        """
        super().__init__(_Bounded(self._source), encoding="utf-8")
        try:
            return super().load()
        except ModelError:
            raise
        except Exception as error:  # a damaged pickle raises nearly anything
            raise ModelError(f"{self._path}: truncated or damaged: {in_words(error)}") from None

    def find_class(self, module: str, name: str) -> Any:
        """Resolve an allowed name to its stand-in."""
        if name == "OrderedDict" and module in ("collections", "typing"):
            return _empty_dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in _ELEMENT_BYTES:
            return _StorageType(name)
        raise ModelError(
            f"{self._path}: wants to load {module}.{name}, which is not part of plain weights; "
            "rejected, since it may run code. Save the weights alone: "
            "torch.save(network.state_dict(), 'weights.pth')"
        )

    def persistent_load(self, identity: Any) -> Storage:
        """Register the values that a tensor views."""
        kind, storage_type, key, _, count = identity[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise ValueError("unknown reference")
        if not isinstance(key, (str, int)) or not isinstance(count, int) or count < 0:
            raise ValueError("a size below 0")
        storage = Storage(str(key), count, count * _ELEMENT_BYTES[storage_type.name])
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError("two sizes for the same values")
        return storage

    def _tensor(
        self, storage: Storage, offset: int, shape: tuple[int, ...], stride: Any, *_: Any
    ) -> Tensor:
        elements = product(shape)
        if offset < 0 or len(stride) != len(shape) or offset + elements > storage.count:
            raise ValueError(f"a tensor of {elements} values in {storage.count}")
        return Tensor()

    def _set_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        _USUAL[pickle.SETITEM[0]](self)

    def _set_items(self) -> None:
        _check_keys(self.stack[::2])
        _USUAL[pickle.SETITEMS[0]](self)

    def _dict(self) -> None:
        _check_keys(self.stack[::2])
        _USUAL[pickle.DICT[0]](self)

    def _build(self) -> None:
        """Drop a dictionary's attributes: torch's have versions, others could replace methods."""
        self.stack.pop()
        if type(self.stack[-1]) is not OrderedDict:
            raise ValueError("attributes of something other than a dictionary")

    def _put(self) -> None:
        """Remember an object under a number of four bytes, from which C sizes a table."""
        number = int.from_bytes(self.read(4), "little")
        if number > MOST_PICKLED:
            raise ValueError(f"object {number} of a pickle of at most {MOST_PICKLED} bytes")
        self.memo[number] = self.stack[-1]

    def _refuse(self) -> None:
        raise ValueError("holds what plain weights don't: a set, or an object by number or line")

    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.LONG_BINPUT[0]] = _put
    dispatch |= dict.fromkeys(
        (
            opcode[0]
            for opcode in (
                *(pickle.PUT, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.EMPTY_SET),
                *(pickle.FROZENSET, pickle.ADDITEMS, pickle.INST, pickle.OBJ, pickle.NEWOBJ),
                *(pickle.NEWOBJ_EX, pickle.BYTEARRAY8, pickle.NEXT_BUFFER),
            )
        ),
        _refuse,
    )


def _empty_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _check_keys(keys: list[Any]) -> None:
    """Accept only keys whose hash takes no time: a nested tuple's could take years."""
    if not all(type(key) in (str, int) for key in keys):
        raise ValueError("a key that is neither text nor a number")


def tensors(state: Any, depth: int = 4) -> Iterator[Tensor]:
    """Yield the tensors of nested dictionaries, visiting each dictionary once."""
    level, seen = [state], {id(state)}
    for _ in range(depth + 1):
        values = (v for mapping in level if isinstance(mapping, Mapping) for v in mapping.values())
        yield from (value for value in level if isinstance(value, Tensor))
        level = list({id(value): value for value in values if id(value) not in seen}.values())
        seen.update(map(id, level))


def product(shape: Any) -> int:
    """Return the number of values of a shape.

    Raises:
        ValueError: It is not the shape of a tensor with values. A side of 0 would cost the file
            nothing, while networks derive sizes from the others.
    """
    if len(shape) > _MOST_AXES or any(type(side) is not int for side in shape):
        raise ValueError("a shape that is none of a tensor")
    if any(not 1 <= side <= _LARGEST_SIDE for side in shape):
        raise ValueError(f"a side below 1 or above {_LARGEST_SIDE}")
    return math.prod(shape)
