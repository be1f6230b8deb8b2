"""Work beside the caller's thread, a few items ahead or behind, so that memory stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def ahead(items: Generator[_T, None, None], count: int) -> Generator[_T, None, None]:
    """The items of a generator that runs in a thread of its own, at most so many ahead.

    The thread is not waited for when the caller leaves early: it may wait for stdin, which nobody
    can interrupt.
    """
    ready: Queue[_T | _End] = Queue(count)
    stop = Event()
    thread = Thread(target=_run, args=(items, ready, stop), daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join(timeout=5)


def _run(items: Generator[_T, None, None], ready: Queue[_T | _End], stop: Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, item, stop):
                break
    except BaseException as raised:  # it is raised where the items are taken
        error = raised
    items.close()
    _put(ready, _End(error), stop)


def _put(ready: Queue[_T], item: _T, stop: Event) -> bool:
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except Full:
            continue
        return True
    return False


class Behind(Generic[_T]):
    """Calls in a thread of their own, one after the other, at most so many behind.

    Args:
        act: What is called.
        count: Calls that may wait.
        finishes: Whether the calls that wait are still made when an exception of the caller's
            thread ends the block. None is made after a call that failed: it would leave a gap.
    """

    def __init__(self, act: Callable[[_T], None], count: int, finishes: bool = False) -> None:
        self._act, self._count, self._finishes = act, count, finishes
        self._pool = ThreadPoolExecutor(1, "write")
        self._waiting: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def __call__(self, item: _T) -> None:
        """Have the call made for an item; what an earlier one raised is raised here."""
        self._waiting.append(self._pool.submit(self._call, item))
        while len(self._waiting) > self._count:
            self._waiting.popleft().result()

    def _call(self, item: _T) -> None:
        """Make a call, unless an earlier one failed."""
        if self._error is not None:
            raise self._error
        try:
            self._act(item)
        except BaseException as error:
            self._error = error
            raise

    def finish(self) -> None:
        """Wait for all calls; what one raised is raised here."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Behind[_T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=not self._finishes)
