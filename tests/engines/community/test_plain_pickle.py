"""Small crafted pickles that would cost much time or memory are rejected at once."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from agsr.engines.community import plain_pickle
from agsr.engines.community.plain_pickle import Index, Tensor, tensors
from agsr.engines.community.tensor_index import read_index
from agsr.errors import ModelError

START, END = b"\x80\x02", b"."
NESTED_TUPLE = b")" + b"\x86".join(b"q%c" % n + b"h%c" % n for n in range(60))
"""A tuple of a tuple twice, and so on: its hash takes 2 to the power of 60 steps."""


def loads(content: bytes) -> object:
    return Index(io.BytesIO(content), Path("a.pth")).load()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"}" + NESTED_TUPLE + b"K\x01s", "a key that is neither text nor a number"),
        (b"}(" + NESTED_TUPLE + b"K\x01u", "a key that is neither text nor a number"),
        (b"(" + NESTED_TUPLE + b"K\x01d", "a key that is neither text nor a number"),
        (b"Nr" + struct.pack("<I", 1 << 31), "object 2147483648 of a pickle"),
        (b"\x8f", "holds what plain weights don't"),
        (b"}}X\x06\x00\x00\x00valuesK\x01sb", "attributes of something other"),
        (b"ccollections\nOrderedDict\n(K\x01t\x85R", "takes 0 positional arguments"),
        (b"N" * 2000, "its index has more than"),
    ],
)
def test_pickles_that_would_hang_or_fill_memory_are_rejected(
    body: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_pickle, "MOST_PICKLED", 1500)
    with pytest.raises(ModelError, match=rf"a\.pth: truncated or damaged: .*{reason}"):
        loads(START + body + END)


def test_attributes_of_dictionaries_are_dropped() -> None:
    """An attribute named like a method would replace it."""
    state: OrderedDict[str, int] = OrderedDict(a=1)
    state.values = 5  # type: ignore[method-assign,assignment]
    found = loads(pickle.dumps(state, protocol=2))
    assert isinstance(found, OrderedDict)
    assert list(found.values()) == [1]


def test_shared_dictionaries_are_visited_once() -> None:
    """Four levels of a thousand references would be visited 10 to the power of 12 times."""
    state: dict[int, object] = {0: Tensor()}
    for _ in range(3):
        state = dict.fromkeys(range(1000), state)
    assert len(list(tensors(state))) == 1
    loop: dict[str, object] = {"a": Tensor()}
    loop["again"] = loop
    assert len(list(tensors(loop))) == 1


def test_an_old_file_with_a_long_index_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.pth"
    state = {f"layer{number}": torch.zeros(1) for number in range(99)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    read_index(path)
    monkeypatch.setattr(plain_pickle, "MOST_PICKLED", 1500)
    with pytest.raises(ModelError, match="its index has more than 1500 bytes"):
        read_index(path)


@pytest.mark.parametrize("shape", [(1,) * 9, (1 << 60,), (2.0,)])
def test_shapes_of_no_tensor_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a shape that is none|a side below"):
        plain_pickle.product(shape)
