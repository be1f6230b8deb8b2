"""Which job a worker gets next: one queue for all workers, and a second attempt for lost jobs.

No process is involved here. `agsr.engines.pool.pool` reports what workers need, finish and lose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set


class JobQueue:
    """Deals jobs, by their numbers, to workers that hold up to three at a time.

    A worker reads one file ahead of the network and writes one behind it. If it dies, any of its
    jobs may be the cause, so each gets a second attempt, which runs alone in a worker.

    >>> queue = JobQueue(3)
    >>> queue.take(set(), idle=True, workers=1), queue.take({0}, idle=False, workers=1)
    (0, 1)
    >>> queue.lose({0, 1})
    set()
    >>> queue.take(set(), idle=True, workers=1), queue.take({0}, idle=True, workers=1)
    (0, None)
    >>> queue.lose({0})
    {0}

    Args:
        count: Number of jobs.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._fresh = deque(range(count))
        self._lost = deque[int]()
        self._alone = set[int]()
        """Jobs in their second attempt."""

    def add(self) -> int:
        """Queue one more job; return its number."""
        number, self._count = self._count, self._count + 1
        self._fresh.append(number)
        return number

    @property
    def waiting(self) -> int:
        """Number of jobs that no worker holds."""
        return len(self._fresh) + len(self._lost)

    def take(self, held: Set[int], *, idle: bool, workers: int) -> int | None:
        """Take the next job for a worker; None if it has to wait, or there is none.

        The last jobs, one per worker, are not dealt ahead: the worker that is idle first gets them.

        Args:
            held: Jobs that the worker holds.
            idle: Whether the worker waits; otherwise it could read one ahead.
            workers: Number of workers.
        """
        if held & self._alone:
            return None
        if self._lost:
            if held or not idle:
                return None
            self._alone.add(self._lost[0])
            return self._lost.popleft()
        if self._fresh and (idle or len(self._fresh) > workers):
            return self._fresh.popleft()
        return None

    def lose(self, held: Set[int]) -> set[int]:
        """Queue the jobs of a worker that died; return those that failed twice instead."""
        failed = set(held & self._alone)
        self._lost.extend(sorted(held - failed))
        return failed

    def put_back(self, held: Set[int]) -> None:
        """Queue jobs of a worker that ended through no fault of its jobs, like its whole machine.

        >>> queue = JobQueue(2)
        >>> number = queue.take(set(), idle=True, workers=1)
        >>> queue.put_back({0})
        >>> queue.take(set(), idle=True, workers=1)
        0
        """
        self._alone -= held
        self._fresh.extendleft(sorted(held, reverse=True))

    def drain(self) -> list[int]:
        """Take all jobs that no worker holds."""
        drained = [*self._lost, *self._fresh]
        self._lost.clear()
        self._fresh.clear()
        return drained
