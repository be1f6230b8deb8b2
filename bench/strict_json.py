"""Standard JSON, in which infinity is the string ``"inf"``, and checks of values read from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")

_PLAIN = {str, int, float, bool, type(None)}


def to_json(record: Mapping[str, Any], indent: int | None = None) -> str:
    """Convert a record to JSON; infinity, the PSNR of equal images, becomes ``"inf"``.

    >>> to_json({"psnr": float("inf")})
    '{"psnr": "inf"}'
    """
    return json.dumps(_finite(record), indent=indent, allow_nan=False)


def numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of a record to floats, including ``"inf"``; None stays.

    Raises:
        ValueError: A value is not a number.

    >>> numbers({"psnr": "inf", "lpips": None})
    {'psnr': inf, 'lpips': None}
    """
    return {name: None if value is None else float(value) for name, value in record.items()}


def seconds(values: Iterable[Any]) -> tuple[float, ...]:
    """Convert durations to floats.

    Raises:
        ValueError: There are none, or one isn't positive and finite.
    """
    found = tuple(map(float, filled(values)))
    if not all(0 < value < math.inf for value in found):
        raise ValueError(f"seconds are {found}; expected positive numbers")
    return found


def check_types(kind: type, record: Mapping[str, Any]) -> None:
    """Check values against the types of a dataclass's fields, where these are plain.

    Raises:
        ValueError: A value is of another type.
    """
    for name, hint in get_type_hints(kind).items():
        allowed = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
        if allowed <= _PLAIN and type(record[name]) not in allowed | _accepted_too(allowed):
            raise ValueError(f"{name} is {record[name]!r}")


def _accepted_too(allowed: set[Any]) -> set[Any]:
    return {int} if float in allowed else set()


def filled(values: Iterable[_T]) -> list[_T]:
    """Return the values as a list.

    Raises:
        ValueError: There are none.
    """
    found = list(values)
    if not found:
        raise ValueError("a list of samples is empty")
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
