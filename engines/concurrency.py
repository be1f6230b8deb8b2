"""Hand values between threads through bounded buffers, so that memory stays bounded.

`prefetch` runs a generator ahead of its consumer, `BackgroundWriter` runs calls behind its caller,
and `Channel` connects a producer and a consumer that both run code of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Full, Queue
from threading import Condition, Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Bounded channel between two threads; at most one value waits in it.

    The producer calls `put`, and `close` when it is done. The consumer iterates, and calls `cancel`
    when it wants no more. Either may stop first.

    >>> channel = Channel[int]()
    >>> channel.put(1)
    True
    >>> channel.close()
    >>> list(channel)
    [1]
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: list[T] = []
        self._closed = self._cancelled = False
        self._error: Exception | None = None

    def put(self, value: T) -> bool:
        """Wait for free space, then add a value. Return False if the consumer has cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or not self._waiting)
            if not self._cancelled:
                self._waiting.append(value)
                self._changed.notify_all()
            return not self._cancelled

    def close(self, error: Exception | None = None) -> None:
        """End the values; an error is raised in the consumer, after the values before it."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """Discard waiting values and reject further ones."""
        with self._changed:
            self._cancelled = True
            self._waiting.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                raise self._error or StopIteration
            value = self._waiting.pop()
            self._changed.notify_all()
            return value


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def prefetch(items: Generator[T, None, None], count: int) -> Generator[T, None, None]:
    """Run a generator in another thread, at most ``count`` items ahead of the caller.

    If the caller stops early, the thread is joined for at most five seconds: it may be blocked on
    stdin, which can't be interrupted.

    >>> list(prefetch((n * n for n in range(4)), 2))
    [0, 1, 4, 9]
    """
    ready: Queue[T | _End] = Queue(count)
    stop = Event()
    thread = Thread(target=_produce, args=(items, ready, stop), daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join(timeout=5)


def _produce(items: Generator[T, None, None], ready: Queue[T | _End], stop: Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, item, stop):
                break
    except BaseException as raised:  # raised again in the consumer's thread
        error = raised
    items.close()
    _put(ready, _End(error), stop)


def _put(ready: Queue[T], item: T, stop: Event) -> bool:
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except Full:
            continue
        return True
    return False


class BackgroundWriter(Generic[T]):
    """Run calls one after the other in another thread, at most ``count`` behind the caller.

    No call is made after one that failed: it would leave a gap.

    >>> written = []
    >>> with BackgroundWriter(written.append, 2) as write:
    ...     write("a")
    ...     write("b")
    ...     write.finish()
    >>> written
    ['a', 'b']

    Args:
        act: Function to call with each item.
        count: Calls that may wait.
        finishes: Whether waiting calls are still made when an exception ends the ``with`` block.
    """

    def __init__(self, act: Callable[[T], None], count: int, finishes: bool = False) -> None:
        self._act, self._count, self._finishes = act, count, finishes
        self._pool = ThreadPoolExecutor(1, "write")
        self._waiting: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def __call__(self, item: T) -> None:
        """Queue the call for an item; raises what an earlier call raised."""
        self._waiting.append(self._pool.submit(self._call, item))
        while len(self._waiting) > self._count:
            self._waiting.popleft().result()

    def _call(self, item: T) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._act(item)
        except BaseException as error:
            self._error = error
            raise

    def finish(self) -> None:
        """Wait for all calls; raises what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> BackgroundWriter[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=not self._finishes)
