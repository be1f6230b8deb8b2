"""Values from the thread that makes them to the one that uses them, one waiting at most."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """An iterator for one thread whose values come from another; either may give up.

    The maker calls `put`, and `end` at last. The user iterates, and calls `leave` at last.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: list[T] = []
        self._ended = self._left = False
        self._error: Exception | None = None

    def put(self, value: T) -> bool:
        """Hand a value over, once there is room for it; False if nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or not self._waiting)
            if not self._left:
                self._waiting.append(value)
                self._changed.notify_all()
            return not self._left

    def end(self, error: Exception | None = None) -> None:
        """There are no more values; with an error, it is raised where the next is asked for."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def leave(self) -> None:
        """No more values are wanted."""
        with self._changed:
            self._left = True
            self._waiting.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                raise self._error or StopIteration
            value = self._waiting.pop()
            self._changed.notify_all()
            return value
