"""The rate limiter of a whole run: which worker may ask which host, when, and what that host has said about itself.

One `RateLimiter` serves all workers. A worker leases a block of requests to a host and reports each when it has ended, so
that over all workers a host never gets more requests at once, or per second, than the recipe allows. Everything travels in
one call, `exchange`, whose arguments are plain values: in the same process it is called directly, from elsewhere through
whatever carries calls (an actor, a server process), a few times per second.

Clocks: only this object's monotonic clock is read; workers get delays, never times.
"""

import math
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vlmdata.web.options import WebOptions
from vlmdata.web.policy import DAY_S, Policy

BLOCK_S = 2.0  # longest stretch of one host's time leased at once: what another worker may have to wait
BLOCK_STARTS = 64
ASK_AGAIN_S = 0.2  # for a worker that found all places taken
SILENT_S = 30.0  # a worker unheard of for longer is dead, and what it held is free again; workers call every 5 s
DUTY_S = 120.0  # a worker that was to fetch a site's policy and did not: another one is sent
REMEMBERED = 1_000_000  # refused addresses, idle hosts, policies kept: some hundred megabytes at the very most
GETS_ON_PER_S = 1.0  # a host that answers so often gets on, and its rows may wait for it
RATE_OVER_S = 10.0  # how fast the past is forgotten when its answers are counted
FIRST_PAUSE_S = 1.0  # after the first 429 or 503 without Retry-After; doubles up to LAST_PAUSE_S
LAST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker wants of one site: `starts` requests, and word on the addresses with these keys (`refused` below)."""

    origin: str
    host: str
    starts: int
    needs_policy: bool
    url_keys: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """`starts` requests may begin, the first after `wait_s`, each `interval_s` after the one before. With no starts:
    ask again after `wait_s`. `fetch_policy`: this worker is to fetch the site's policy and tell it. `still_s`: seconds since
    the host last got on, infinite if it never did."""

    origin: str
    starts: int
    wait_s: float
    interval_s: float
    policy: Policy | None = None
    fetch_policy: bool = False
    refused: tuple[tuple[int, str], ...] = ()
    still_s: float = math.inf


@dataclass(frozen=True, slots=True)
class HostReport:
    """`ended` requests to a host are over (or were never begun). `trouble`: the host asked for less, or did not answer
    at all; `rest_s` is its Retry-After."""

    host: str
    ended: int
    trouble: bool = False
    rest_s: float = 0.0
    answered: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What a worker learnt: a site's policy, or that the address with a key was refused by its site."""

    origin: str = ""
    host: str = ""
    policy: Policy | None = None
    url_key: int = 0
    failure: str = ""


@dataclass(slots=True)
class _Host:
    rate: float
    in_use: int = 0
    next_start: float = 0.0
    closed_until: float = 0.0
    strikes: int = 0
    crawl_delay_s: float = 0.0
    queue: dict[str, float] = field(default_factory=dict)  # workers that found no place, first come first: last asked
    answers_per_s: float = 0.0  # at `counted_at`, over the last seconds
    counted_at: float = 0.0
    got_on_at: float = -math.inf

    def is_idle(self, now: float) -> bool:
        """Nothing would be lost by forgetting it."""
        rested = now > max(self.next_start, self.closed_until + 2 * LAST_PAUSE_S * bool(self.strikes))
        return rested and not (self.in_use or self.queue or self.crawl_delay_s)

    def count(self, answers: int, now: float) -> None:
        """Count answers, and note whether they come fast enough to wait for."""
        self.answers_per_s *= math.exp((self.counted_at - now) / RATE_OVER_S)
        self.answers_per_s += answers / RATE_OVER_S
        self.counted_at = now
        if self.answers_per_s >= GETS_ON_PER_S:
            self.got_on_at = now


class RateLimiter:
    """Thread-safe. `is_local` tells a client that a call costs microseconds, so that it need not be made on the side."""

    is_local = True

    def __init__(self, options: WebOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._in_use = 0  # places of all hosts
        self._policies: OrderedDict[str, tuple[Policy, float]] = OrderedDict()  # with the time it ends
        self._duties: dict[str, tuple[str, float]] = {}  # site: the worker fetching its policy, until when
        self._refused: OrderedDict[int, str] = OrderedDict()
        self._held: dict[str, dict[str, int]] = {}  # worker: host: starts it holds
        self._seen: dict[str, float] = {}
        self._next_sweep = 0.0

    def exchange(self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]) -> list[Grant]:
        """Take what a worker has to tell, and answer its asks in their order. Never blocks for long and never raises for
        what a worker says twice or too late."""
        with self._lock:
            now = self._clock()
            self._seen[worker] = now
            for report in reports:
                self._settle(worker, report, now)
            for item in news:
                self._learn(item, now)
            if now >= self._next_sweep:
                self._sweep(now)
            return [self._grant(worker, ask, now) for ask in asks]

    def leave(self, worker: str) -> None:
        """Free everything a worker holds: it is done, or known to be dead."""
        with self._lock:
            self._free(worker)

    def _grant(self, worker: str, ask: Ask, now: float) -> Grant:
        host = self._host(ask.host)
        refused = tuple((key, self._refused[key]) for key in ask.url_keys if key in self._refused)
        policy, fetch_policy = self._policy(worker, ask, now) if ask.needs_policy else (None, False)
        wanted = 1 if fetch_policy else ask.starts - len(refused)
        if ask.needs_policy and policy is None and not fetch_policy:
            return Grant(ask.origin, 0, ASK_AGAIN_S, 0.0, refused=refused, still_s=now - host.got_on_at)  # another fetches it
        starts, wait_s, interval_s = self._lease(worker, ask.host, host, wanted, now)
        if fetch_policy:
            self._duties[ask.origin] = (worker, now + wait_s + DUTY_S)
        return Grant(ask.origin, starts, wait_s, interval_s, policy, fetch_policy, refused, now - host.got_on_at)

    def _lease(self, worker: str, name: str, host: _Host, wanted: int, now: float) -> tuple[int, float, float]:
        """Return (starts, wait_s, interval_s)."""
        interval_s = max(1.0 / host.rate if host.rate else 0.0, host.crawl_delay_s)
        if wanted <= 0:
            return 0, ASK_AGAIN_S, interval_s
        if host.closed_until > now:
            return 0, host.closed_until - now, interval_s
        first = max(now, host.next_start)
        if first - now > BLOCK_S:
            return 0, first - now - BLOCK_S / 2, interval_s
        free = self._free_places(worker, host, now)
        if free <= 0:
            host.queue[worker] = now  # keeps its place if it already waits
            return 0, ASK_AGAIN_S, interval_s
        host.queue.pop(worker, None)
        starts = min(wanted, free, BLOCK_STARTS)
        if interval_s:
            starts = min(starts, max(1, int(BLOCK_S / interval_s)))
        host.next_start = first + starts * interval_s
        host.in_use += starts
        self._in_use += starts
        held = self._held.setdefault(worker, {})
        held[name] = held.get(name, 0) + starts
        return starts, first - now, interval_s

    def _free_places(self, worker: str, host: _Host, now: float) -> int:
        """Places this worker may take: none while as many others, who came before it, wait for them."""
        for other in [other for other, asked in host.queue.items() if now - asked > 10 * ASK_AGAIN_S]:
            del host.queue[other]  # no longer interested
        ahead = 0
        for other in host.queue:
            if other == worker:
                break
            ahead += 1
        free = BLOCK_STARTS
        if self._options.host_connections:
            limit = max(1, self._options.host_connections >> min(host.strikes, 8))  # half as many after each pause
            free = limit - host.in_use - ahead
        if self._options.run_connections:
            free = min(free, self._options.run_connections - self._in_use)
        return free

    def _settle(self, worker: str, report: HostReport, now: float) -> None:
        host = self._host(report.host)
        held = self._held.get(worker, {})
        ended = min(report.ended, held.get(report.host, 0))  # never more than it holds: it may have been given up for dead
        if ended:
            host.in_use -= ended
            self._in_use -= ended
            held[report.host] -= ended
            if not held[report.host]:
                del held[report.host]
        if report.trouble:
            if now >= host.closed_until:  # six requests that fail together are one trouble
                host.strikes += 1
                pause = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(host.strikes - 1, 16))
                host.closed_until = now + pause * random.uniform(0.5, 1.0)  # spread, or all come back at once
            host.closed_until = max(host.closed_until, now + min(report.rest_s, DAY_S))
        elif report.answered:
            host.count(ended, now)
            if host.strikes and now >= host.closed_until:
                host.strikes -= 1

    def _learn(self, item: News, now: float) -> None:
        if item.policy is not None:
            self._policies[item.origin] = (item.policy, now + item.policy.ttl_s)
            self._policies.move_to_end(item.origin)
            self._duties.pop(item.origin, None)
            host = self._host(item.host)
            host.crawl_delay_s = max(host.crawl_delay_s, item.policy.crawl_delay_s)
        if item.failure:
            self._refused[item.url_key] = item.failure

    def _policy(self, worker: str, ask: Ask, now: float) -> tuple[Policy | None, bool]:
        known = self._policies.get(ask.origin)
        if known is not None and now < known[1]:
            self._policies.move_to_end(ask.origin)
            return known[0], False
        sent, until = self._duties.get(ask.origin, ("", 0.0))
        return None, sent in ("", worker) or now >= until

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(self._options.host_rates.get(name, self._options.host_requests_per_s))
        return host

    def _sweep(self, now: float) -> None:
        """Once in a while: free what the dead held, forget what is idle or too much."""
        self._next_sweep = now + SILENT_S / 10
        for worker in [worker for worker, seen in self._seen.items() if now - seen > SILENT_S]:
            self._free(worker)
        for name in [name for name, host in self._hosts.items() if host.is_idle(now)]:
            del self._hosts[name]
        for origin in [origin for origin, (_, until) in self._duties.items() if now >= until]:
            del self._duties[origin]
        while len(self._policies) > REMEMBERED:
            self._policies.popitem(last=False)
        while len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)

    def _free(self, worker: str) -> None:
        self._seen.pop(worker, None)
        for name, count in self._held.pop(worker, {}).items():
            self._host(name).in_use -= count
            self._in_use -= count
        for origin in [origin for origin, (sent, _) in self._duties.items() if sent == worker]:
            del self._duties[origin]
