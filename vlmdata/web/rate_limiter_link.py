"""The connection of a client to the rate limiter: direct calls in the same process, or a thread that calls another process.

A call to another process takes a millisecond, or a second on a busy cluster. Transfers must continue during the call.
"""

import queue
from collections.abc import Callable, Sequence
from typing import Protocol

from vlmdata.process.thread import Thread, attempt
from vlmdata.web.rate_limiter import Ask, Grant, HostReport, News

Messages = tuple[list[Ask], list[HostReport], list[News]]


class RateLimiterLike(Protocol):
    """A `RateLimiter`, or a proxy with `is_local = False` for a `RateLimiter` in another process."""

    @property
    def is_local(self) -> bool:
        """Whether a call takes only microseconds."""

    def exchange(self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]) -> list[Grant]:
        """Return one grant for each ask, as `RateLimiter.exchange` does."""


class RateLimiterLink:
    """Sends messages to the rate limiter, one call at a time.

    If the rate limiter is not local, the link has a thread, which passes the answer or the error of each call to `deliver`.
    """

    def __init__(self, limiter: RateLimiterLike, worker: str, deliver: Callable[[list[Grant] | BaseException], None]) -> None:
        self.is_free = True  # the client sets this again after it has applied an answer
        self._limiter = limiter
        self._worker = worker
        self._deliver = deliver
        self._outbox: queue.SimpleQueue[Messages | None] = queue.SimpleQueue()
        self._thread: Thread | None = None
        if not limiter.is_local:
            self._thread = Thread(attempt, self._forward, deliver, name="rate-limiter-link")  # an error stops the client
            self._thread.start()

    def send(self, messages: Messages) -> list[Grant] | None:
        """Send messages. Return the answer, or None if `deliver` will get the answer."""
        if self._thread is None:
            return self._limiter.exchange(self._worker, *messages)
        self.is_free = False
        self._outbox.put(messages)
        return None

    def close(self, last: Messages) -> None:
        """Send the messages `last`, and end the link's thread if it has one.

        The wait for the thread is at most 5 seconds, because the rate limiter may have died.
        """
        if self._thread is None:
            self._limiter.exchange(self._worker, *last)
        else:
            self._outbox.put(last)
            self._outbox.put(None)
            self._thread.join(timeout=5.0)

    def _forward(self) -> None:
        while (messages := self._outbox.get()) is not None:
            self._deliver(self._limiter.exchange(self._worker, *messages))
