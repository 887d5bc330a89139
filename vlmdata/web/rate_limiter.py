"""The rate limiter of a run decides which worker may send a request to which host and when.

It also stores the policy of each site, so that one worker fetches the policy and all workers get it.

One `RateLimiter` serves all workers. A worker leases a block of requests to a host and reports the end of each request. Thus a
host never gets more requests at once, or per second, from all workers together than the recipe allows. Workers call `exchange`
a few times per second, directly or through an actor or a server process, so arguments and results can be pickled.

Workers get delays, not times, because clocks of different machines differ.
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

BLOCK_S = 2.0  # a lease lasts at most this many seconds at the host's rate, so another worker waits no longer
BLOCK_STARTS = 64  # maximum number of requests in one lease
ASK_AGAIN_S = 0.2  # seconds until a worker that found no free slot asks again
SILENT_S = 30.0  # seconds without a call after which a worker counts as dead and loses its leases; workers call every 5 s
DUTY_S = 120.0  # seconds for a worker to fetch the policy of a site before another worker is asked to fetch it
REMEMBERED = 1_000_000  # maximum number of refused addresses, and of policies, in memory: a few hundred megabytes
PROGRESS_PER_S = 1.0  # a host that sends at least this many answers per second makes progress, and its rows keep waiting
RATE_OVER_S = 10.0  # time constant of the exponential average of answers per second
FIRST_PAUSE_S = 1.0  # seconds after the first 429 or 503 without Retry-After; the pause doubles up to LAST_PAUSE_S
LAST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A worker's question about one site: may it start `starts` requests, and which of `url_keys` has the site refused?"""

    origin: str
    host: str
    starts: int
    needs_policy: bool
    url_keys: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to an `Ask`: `starts` requests may start, the first after `wait_s` and the rest at intervals of `interval_s`.

    If `starts` is 0, the worker asks again after `wait_s`. If `fetch_policy` is True, the worker must fetch the site's policy
    and report it. `refused` holds (key, failure) for each refused address. `stalled_s` is the time in seconds since the host
    last made progress, or infinity if it never did.
    """

    origin: str
    starts: int
    wait_s: float
    interval_s: float
    policy: Policy | None = None
    fetch_policy: bool = False
    refused: tuple[tuple[int, str], ...] = ()
    stalled_s: float = math.inf


@dataclass(frozen=True, slots=True)
class HostReport:
    """A worker's report on a host: `ended` requests have ended or will never start.

    `trouble` is True if the host asked for fewer requests or did not answer. `rest_s` is the host's Retry-After in seconds.
    `answered` is True if the host answered.
    """

    host: str
    ended: int
    trouble: bool = False
    rest_s: float = 0.0
    answered: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """News from a worker: a site's policy, or the refusal of an address by its site. `url_key` is the hash of the address."""

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
    queue: dict[str, float] = field(default_factory=dict)  # waiting worker -> time of its last question, in order of arrival
    answers_per_s: float = 0.0  # exponential average at the time `counted_at`
    counted_at: float = 0.0
    progress_at: float = -math.inf

    def is_idle(self, now: float) -> bool:
        """Return whether this host can be forgotten without losing information."""
        rested = now > max(self.next_start, self.closed_until + 2 * LAST_PAUSE_S * bool(self.strikes))
        return rested and not (self.in_use or self.queue or self.crawl_delay_s)

    def count(self, answers: int, now: float) -> None:
        """Add answers to the average rate. If the rate is high enough, record that the host makes progress."""
        self.answers_per_s *= math.exp((self.counted_at - now) / RATE_OVER_S)
        self.answers_per_s += answers / RATE_OVER_S
        self.counted_at = now
        if self.answers_per_s >= PROGRESS_PER_S:
            self.progress_at = now


class RateLimiter:
    """Grants the requests of all workers. Thread-safe.

    `is_local` tells a worker that the limiter is in the worker's own process, so that a call takes only microseconds.
    """

    is_local = True

    def __init__(self, options: WebOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._in_use = 0  # used slots of all hosts
        self._policies: OrderedDict[str, tuple[Policy, float]] = OrderedDict()  # site -> (policy, time at which it expires)
        self._policy_fetchers: dict[str, tuple[str, float]] = {}  # site -> (worker that fetches its policy, deadline)
        self._refused: OrderedDict[int, str] = OrderedDict()
        self._leased: dict[str, dict[str, int]] = {}  # worker -> host -> number of leased starts
        self._last_seen: dict[str, float] = {}
        self._next_sweep = 0.0

    def exchange(self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]) -> list[Grant]:
        """Apply a worker's reports and news, and return one grant for each ask, in order.

        The call does not wait. Reports may be repeated or late.
        """
        with self._lock:
            now = self._clock()
            self._last_seen[worker] = now
            for report in reports:
                self._settle(worker, report, now)
            for item in news:
                self._learn(item, now)
            if now >= self._next_sweep:
                self._sweep(now)
            return [self._grant(worker, ask, now) for ask in asks]

    def leave(self, worker: str) -> None:
        """Free all leases of a worker that has finished or died."""
        with self._lock:
            self._free(worker)

    def _grant(self, worker: str, ask: Ask, now: float) -> Grant:
        host = self._host(ask.host)
        refused = tuple((key, self._refused[key]) for key in ask.url_keys if key in self._refused)
        policy, fetch_policy = self._policy(worker, ask, now) if ask.needs_policy else (None, False)
        wanted = 1 if fetch_policy else ask.starts - len(refused)
        if ask.needs_policy and policy is None and not fetch_policy:
            # another worker fetches it
            return Grant(ask.origin, 0, ASK_AGAIN_S, 0.0, refused=refused, stalled_s=now - host.progress_at)
        starts, wait_s, interval_s = self._lease(worker, ask.host, host, wanted, now)
        if fetch_policy:
            self._policy_fetchers[ask.origin] = (worker, now + wait_s + DUTY_S)
        return Grant(ask.origin, starts, wait_s, interval_s, policy, fetch_policy, refused, now - host.progress_at)

    def _lease(self, worker: str, name: str, host: _Host, wanted: int, now: float) -> tuple[int, float, float]:
        """Allow a worker to start up to `wanted` requests to a host. Return (starts, wait_s, interval_s).

        `starts` is the number of allowed requests, which count as in use from now on. The first may start after `wait_s`
        seconds, and each further one `interval_s` seconds after the one before. If `starts` is 0, the worker may ask again
        after `wait_s` seconds.
        """
        interval_s = max(1.0 / host.rate if host.rate else 0.0, host.crawl_delay_s)
        if wanted <= 0:
            return 0, ASK_AGAIN_S, interval_s
        if host.closed_until > now:
            return 0, host.closed_until - now, interval_s
        first = max(now, host.next_start)
        if first - now > BLOCK_S:
            return 0, first - now - BLOCK_S / 2, interval_s
        free = self._free_slots(worker, host, now)
        if free <= 0:
            host.queue[worker] = now  # a worker that already waits keeps its position
            return 0, ASK_AGAIN_S, interval_s
        host.queue.pop(worker, None)
        starts = min(wanted, free, BLOCK_STARTS)
        if interval_s:
            starts = min(starts, max(1, int(BLOCK_S / interval_s)))
        host.next_start = first + starts * interval_s
        host.in_use += starts
        self._in_use += starts
        leased = self._leased.setdefault(worker, {})
        leased[name] = leased.get(name, 0) + starts
        return starts, first - now, interval_s

    def _free_slots(self, worker: str, host: _Host, now: float) -> int:
        """Return the number of slots that this worker may take: the free slots minus the workers ahead of it in the queue."""
        for other in [other for other, asked_at in host.queue.items() if now - asked_at > 10 * ASK_AGAIN_S]:
            del host.queue[other]  # the other worker has stopped asking
        ahead = 0
        for other in host.queue:
            if other == worker:
                break
            ahead += 1
        free = BLOCK_STARTS
        if self._options.host_connections:
            limit = max(1, self._options.host_connections >> min(host.strikes, 8))  # halved by each pause
            free = limit - host.in_use - ahead
        if self._options.run_connections:
            free = min(free, self._options.run_connections - self._in_use)
        return free

    def _settle(self, worker: str, report: HostReport, now: float) -> None:
        host = self._host(report.host)
        leased = self._leased.get(worker, {})
        ended = min(report.ended, leased.get(report.host, 0))  # a worker that counted as dead has no leases left
        if ended:
            host.in_use -= ended
            self._in_use -= ended
            leased[report.host] -= ended
            if not leased[report.host]:
                del leased[report.host]
        if report.trouble:
            if now >= host.closed_until:  # requests that fail together count once
                host.strikes += 1
                pause = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(host.strikes - 1, 16))
                host.closed_until = now + pause * random.uniform(0.5, 1.0)  # random, so that hosts do not all resume together
            host.closed_until = max(host.closed_until, now + min(report.rest_s, DAY_S))
        elif report.answered:
            host.count(ended, now)
            if host.strikes and now >= host.closed_until:
                host.strikes -= 1

    def _learn(self, item: News, now: float) -> None:
        if item.policy is not None:
            self._policies[item.origin] = (item.policy, now + item.policy.ttl_s)
            self._policies.move_to_end(item.origin)
            self._policy_fetchers.pop(item.origin, None)
            host = self._host(item.host)
            host.crawl_delay_s = max(host.crawl_delay_s, item.policy.crawl_delay_s)
        if item.failure:
            self._refused[item.url_key] = item.failure

    def _policy(self, worker: str, ask: Ask, now: float) -> tuple[Policy | None, bool]:
        known = self._policies.get(ask.origin)
        if known is not None and now < known[1]:
            self._policies.move_to_end(ask.origin)
            return known[0], False
        fetcher, until = self._policy_fetchers.get(ask.origin, ("", 0.0))
        return None, fetcher in ("", worker) or now >= until

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(self._options.host_rates.get(name, self._options.host_requests_per_s))
        return host

    def _sweep(self, now: float) -> None:
        """Free the leases of dead workers, and forget idle hosts. Keep only the newest REMEMBERED policies and refusals."""
        self._next_sweep = now + SILENT_S / 10
        for worker in [worker for worker, seen in self._last_seen.items() if now - seen > SILENT_S]:
            self._free(worker)
        for name in [name for name, host in self._hosts.items() if host.is_idle(now)]:
            del self._hosts[name]
        for origin in [origin for origin, (_, until) in self._policy_fetchers.items() if now >= until]:
            del self._policy_fetchers[origin]
        while len(self._policies) > REMEMBERED:
            self._policies.popitem(last=False)
        while len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)

    def _free(self, worker: str) -> None:
        self._last_seen.pop(worker, None)
        for name, count in self._leased.pop(worker, {}).items():
            self._host(name).in_use -= count
            self._in_use -= count
        for origin in [origin for origin, (fetcher, _) in self._policy_fetchers.items() if fetcher == worker]:
            del self._policy_fetchers[origin]
