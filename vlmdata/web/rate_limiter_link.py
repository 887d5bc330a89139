"""The way from a client to the arbiter of the pace: a plain call in the same process, a thread of its own otherwise.

A call to another process takes from one millisecond to, on a busy cluster, a second; no transfer is to stand still for it.
"""

import queue
from collections.abc import Callable, Sequence
from typing import Protocol

from vlmdata.process.thread import Thread, attempt
from vlmdata.web.rate_limiter import Ask, Grant, HostReport, News

Messages = tuple[list[Ask], list[HostReport], list[News]]


class RateLimiterLike(Protocol):
    """A `Pace`, or a stand-in that carries the call to one elsewhere and says `is_local = False`."""

    @property
    def is_local(self) -> bool: ...

    def exchange(
        self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]
    ) -> list[Grant]: ...


class RateLimiterLink:
    """One exchange under way at a time; what comes up meanwhile waits and goes together. `deliver` is called on the link's
    thread with the answer of an arbiter that is not local, or with what the call raised."""

    def __init__(self, limiter: RateLimiterLike, worker: str, deliver: Callable[[list[Grant] | BaseException], None]) -> None:
        self.is_free = True  # the client sets it when it has taken an answer
        self._limiter = limiter
        self._worker = worker
        self._deliver = deliver
        self._letters: queue.SimpleQueue[Messages | None] = queue.SimpleQueue()
        self._thread: Thread | None = None
        if not limiter.is_local:
            self._thread = Thread(attempt, self._carry, deliver, name="arbiter-link")  # the client stops with the error
            self._thread.start()

    def send(self, messages: Messages) -> list[Grant] | None:
        """Return the answer, or None if it will be delivered."""
        if self._thread is None:
            return self._limiter.exchange(self._worker, *messages)
        self.is_free = False
        self._letters.put(messages)
        return None

    def close(self, last: Messages) -> None:
        """Say the last word, and do not wait long for an arbiter that may be gone."""
        if self._thread is None:
            self._limiter.exchange(self._worker, *last)
        else:
            self._letters.put(last)
            self._letters.put(None)
            self._thread.join(timeout=5.0)

    def _carry(self) -> None:
        while (messages := self._letters.get()) is not None:
            self._deliver(self._limiter.exchange(self._worker, *messages))
