"""Hand values between threads through bounded buffers, so that memory stays bounded.

`prefetch` runs a generator ahead of its consumer, `BackgroundWriter` runs calls behind its caller,
and `Channel` connects a producer and a consumer that both run code of their own. Their threads run
in the context of their caller, so its context variables reach them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Condition, Thread
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ContextPool(ThreadPoolExecutor):
    """Thread pool whose calls run in the context of their caller."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call as `ThreadPoolExecutor` does."""
        call = partial(fn, *args, **kwargs)
        return super().submit(copy_context().run, call)


class Channel(Generic[T]):
    """Bounded channel between two threads.

    The producer calls `put`, and `close` when it is done. The consumer iterates, and calls `cancel`
    when it wants no more. Either may stop first.

    >>> channel = Channel[int]()
    >>> channel.put(1)
    True
    >>> channel.close()
    >>> list(channel)
    [1]

    Args:
        count: Maximum number of waiting values.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._changed = Condition()
        self._waiting: deque[T] = deque()
        self._closed = self._cancelled = False
        self._error: BaseException | None = None

    def put(self, value: T) -> bool:
        """Wait for free space, then add a value. Return False if the consumer has cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or len(self._waiting) < self._count)
            if not self._cancelled:
                self._waiting.append(value)
                self._changed.notify_all()
            return not self._cancelled

    def close(self, error: BaseException | None = None) -> None:
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
            value = self._waiting.popleft()
            self._changed.notify_all()
            return value


def prefetch(items: Generator[T, None, None], count: int) -> Generator[T, None, None]:
    """Run a generator in another thread, at most ``count`` items ahead of the caller.

    If the caller stops early, the thread is joined for at most five seconds: it may be blocked on
    stdin, which can't be interrupted.

    >>> list(prefetch((n * n for n in range(4)), 2))
    [0, 1, 4, 9]
    """
    channel = Channel[T](count)
    run = partial(copy_context().run, _produce, items, channel)
    thread = Thread(name="prefetch", target=run, daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.cancel()
        thread.join(timeout=5)


def _produce(items: Generator[T, None, None], channel: Channel[T]) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            if not channel.put(item):
                break
    except BaseException as raised:  # raised again in the consumer's thread
        error = raised
    items.close()
    channel.close(error)


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
        self._pool = ContextPool(1, "write")
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
