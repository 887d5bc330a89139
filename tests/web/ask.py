"""Fetch addresses with the real client, and wait for every outcome."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from vlmdata.web.client import Client
from vlmdata.web.dns import Lookup, system_lookup
from vlmdata.web.fetch import Fetched
from vlmdata.web.options import WebOptions
from vlmdata.web.rate_limiter import RateLimiter

LOOPBACK = tuple(f"127.0.0.{number}" for number in range(1, 40))
PATIENCE_S = 120.0


def options(**changed: Any) -> WebOptions:
    """Return options that allow the loopback addresses, with time limits for a machine ten times slower."""
    plain: dict[str, Any] = {
        "allowed_hosts": LOOPBACK,
        "host_requests_per_s": 0.0,
        "timeout_s": 60.0,
        "connect_timeout_s": 60.0,
        "retries": 0,
        "max_wait_s": 100.0,
    }
    return WebOptions(**{**plain, **changed})


def ask(urls: list[str], *, rate_limiter: Any = None, lookup: Lookup = system_lookup, **changed: Any) -> list[Fetched]:
    """Return the outcomes in the order of the addresses. Fail if one is missing or occurs twice."""
    chosen = options(**changed)
    client = Client(chosen, rate_limiter or RateLimiter(chosen), lookup=lookup)
    try:
        return ask_client(client, urls)
    finally:
        client.close()


def ask_client(client: Client, urls: list[str]) -> list[Fetched]:
    """Fetch as `ask` does, with a client that stays open."""
    outcomes: list[list[Fetched]] = [[] for _ in urls]
    left = threading.Semaphore(0)

    def take(position: int, fetched: Fetched) -> None:
        outcomes[position].append(fetched)
        left.release()

    for position, url in enumerate(urls):
        client.submit(url, functools.partial(take, position))
    for _ in urls:
        assert left.acquire(timeout=PATIENCE_S), f"no outcome for {[u for u, o in zip(urls, outcomes, strict=True) if not o]}"
    assert [len(outcome) for outcome in outcomes] == [1] * len(urls)
    return [outcome[0] for outcome in outcomes]


def wait_until(claim: Callable[[], bool]) -> None:
    """Return once `claim` is true. Fail after PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.005)


class Leaping:
    """A clock for the client that a test can set ahead, so that a time limit passes without waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        self._reads = 0
        for module in ("client", "transfer"):
            monkeypatch.setattr(f"vlmdata.web.{module}.time", self)

    def monotonic(self) -> float:
        self._reads += 1
        return time.monotonic() + self.ahead_s

    def leap(self, seconds: float, client: Client) -> None:
        """Set the clock ahead. Returns after the client's current pass, because a real clock does not leap during one."""
        self.ahead_s += seconds
        before = self._reads
        client.release(0)  # wakes the client
        wait_until(lambda: self._reads > before + 1)


def ask_one(url: str, **changed: Any) -> Fetched:
    return ask([url], **changed)[0]


def failures(fetched: list[Fetched]) -> list[str | None]:
    return [one.failure for one in fetched]
