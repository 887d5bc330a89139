"""The queues of one worker, one queue per site, in which rows wait until the rate limiter lets them start.

Each site also has a policy, and the number of requests that the rate limiter currently allows the worker to start. Only the
client's thread may use this module.
"""

import heapq
import itertools
import math
import random
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlmdata.web.fetch import Fetch
from vlmdata.web.policy import Policy
from vlmdata.web.rate_limiter import ASK_AGAIN_S, Ask, Grant, HostReport, News

KEPT_SITES = 20_000  # above this number, idle sites are forgotten; the rate limiter keeps their policies
KEYS_AT_ONCE = 1_000  # maximum number of addresses of a site in one question to the rate limiter


@dataclass(slots=True, eq=False)
class Site:
    """One origin: its waiting rows, its policy, and the starts, that is, how many requests this worker may still start."""

    origin: str
    host: str
    waiting: deque[Fetch] = field(default_factory=deque)
    urgent: deque[Fetch] = field(default_factory=deque)  # requests for the policy of this or a redirecting site
    policy: Policy | None = None
    policy_until: float = 0.0
    fetching_policy: bool = False
    starts: int = 0
    next_start: float = 0.0
    interval_s: float = 0.0
    is_asking: bool = False
    ask_at: float = 0.0
    rests_until: float = 0.0  # by the rate limiter's last answer, no request may start earlier
    progress_at: float = -math.inf  # time at which the host last made progress, over all workers
    awaits_slot: bool = False  # True if no start was granted because the host has its maximum of concurrent requests

    def is_idle(self) -> bool:
        """Return whether the site can be forgotten.

        It can if its queues are empty, no granted starts are left, and neither an answer nor a policy is awaited.
        """
        return not (self.waiting or self.urgent or self.starts or self.is_asking or self.fetching_policy)


class Turns:
    """The queues of all sites. After each call, the client handles and empties `starting`, `refused` and `policy_wanted`."""

    def __init__(self, *, needs_policy: bool, max_wait_s: float) -> None:
        self.starting: list[Fetch] = []
        self.refused: list[tuple[Fetch, str]] = []
        self.policy_wanted: list[Site] = []
        self._needs_policy = needs_policy
        self._max_wait_s = max_wait_s
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._by_host: dict[str, list[Site]] = {}
        self._touched: dict[str, Site] = {}
        self._alarms: list[tuple[float, int, Site]] = []
        self._counter = itertools.count()
        self._asking: list[Site] = []
        self._reports: dict[str, HostReport] = {}
        self._news: list[News] = []
        self._open: dict[str, int] = {}  # host -> number of requests that have started but not ended

    def add(self, fetch: Fetch, now: float) -> None:
        """Queue a row at its site, or refuse it if it cannot start in time or the site's policy forbids it."""
        fetch.queued_at = now
        site = self._site(fetch.url.origin, fetch.url.host)
        if not fetch.is_policy and (failure := self._refusal(site, fetch, now)) is not None:
            self.refused.append((fetch, failure))
        elif site.rests_until > now and self._is_late(site, fetch, site.rests_until):
            self.refused.append((fetch, fetch.failure or "host_busy"))  # `_refuse_late` refused the waiting rows, too
        elif fetch.is_policy:
            site.urgent.append(fetch)
        else:
            site.waiting.append(fetch)
        self._touched[site.origin] = site

    def advance(self, now: float) -> None:
        """Move the rows that may start now to `starting`."""
        while self._alarms and self._alarms[0][0] <= now:
            site = heapq.heappop(self._alarms)[2]
            if self._sites.get(site.origin) is site:  # False if the site was forgotten, and perhaps added again as a new object
                self._touched[site.origin] = site
        touched, self._touched = self._touched, {}
        for site in touched.values():
            self._advance_site(site, now)

    @property
    def has_work(self) -> bool:
        """Whether the client has something to do without waiting."""
        return bool(self._touched or self.starting or self.refused or self.policy_wanted)

    @property
    def has_messages(self) -> bool:
        """Whether there is something to send to the rate limiter."""
        return bool(self._asking or self._reports or self._news)

    def known(self) -> tuple[int, int]:
        """Return the number of sites and of hosts in memory."""
        return len(self._sites), len(self._by_host)

    def next_alarm(self) -> float | None:
        """Return the time at which `advance` must be called next, or None if no alarm is set."""
        return self._alarms[0][0] if self._alarms else None

    def ended(self, host: str, *, trouble: bool = False, rest_s: float = 0.0, answered: bool = False) -> None:
        """Record the end of a request to a host. `trouble`, `rest_s` and `answered` are as in `HostReport`."""
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]
        self._report(host, 1, trouble, rest_s, answered)
        for site in self._by_host.get(host, ()):
            if site.awaits_slot:  # a slot is free, so ask again at once
                site.ask_at, site.awaits_slot = 0.0, False
                self._touched[site.origin] = site

    def learn_refusal(self, key: int, failure: str) -> None:
        """Report to all workers that a site refuses an address. `key` is the hash of the address."""
        self._news.append(News(url_key=key, failure=failure))

    def learn_policy(self, site: Site, policy: Policy, now: float) -> None:
        """Apply a site's policy, and report it to all workers."""
        site.fetching_policy = False
        self._news.append(News(origin=site.origin, host=site.host, policy=policy))
        self._take_policy(site, policy, now)
        self._touched[site.origin] = site

    def messages(self) -> tuple[list[Ask], list[HostReport], list[News]]:
        """Return the messages for the rate limiter and forget them. The caller must pass the answer to `take`."""
        asks = []
        for site in self._asking:
            wanted = len(site.waiting) + len(site.urgent)
            new = [fetch for fetch in itertools.islice(site.waiting, KEYS_AT_ONCE) if not fetch.is_looked_up]
            for fetch in new:
                fetch.is_looked_up = True
            asks.append(Ask(site.origin, site.host, wanted, self._lacks_policy(site), tuple(fetch.key for fetch in new)))
        reports, news = list(self._reports.values()), self._news
        self._asking, self._reports, self._news = [], {}, []
        return asks, reports, news

    def take(self, grants: list[Grant], now: float) -> None:
        """Apply the answer of the rate limiter."""
        for grant in grants:
            site = self._sites[grant.origin]
            site.is_asking = False
            site.progress_at = max(site.progress_at, now - grant.stalled_s)
            if grant.refused:
                self._drop_refused(site, dict(grant.refused))
            if grant.policy is not None:
                self._take_policy(site, grant.policy, now)
            if grant.fetch_policy and not site.fetching_policy:
                site.fetching_policy = True
                self.policy_wanted.append(site)
            if grant.starts:
                site.starts += grant.starts
                site.next_start = max(site.next_start, now + grant.wait_s)
                site.interval_s = grant.interval_s
            else:
                site.ask_at = now + grant.wait_s * random.uniform(1.0, 1.25)
                site.awaits_slot = grant.wait_s == ASK_AGAIN_S
                site.rests_until = now + grant.wait_s
                self._refuse_late(site, site.rests_until)
            self._touched[site.origin] = site

    def expire(self, now: float) -> None:
        """Refuse the rows that have waited longer than `max_wait_s`. Time before the host's last progress does not count."""
        for site in self._sites.values():
            if site.waiting or site.urgent:
                self._refuse_late(site, now)

    def drain(self) -> Iterator[Fetch]:
        """Yield every queued row, and report all leased starts and all running requests as ended.

        The client calls this when it closes.
        """
        for site in self._sites.values():
            yield from site.urgent
            yield from site.waiting
            if site.starts:
                self._report(site.host, site.starts)
        for host, count in self._open.items():
            self._report(host, count)
        self._sites.clear()
        self._asking = []

    def _advance_site(self, site: Site, now: float) -> None:
        if site.policy is not None and now >= site.policy_until:
            site.policy = None
        while site.starts and (queue := self._startable(site)):
            if now < site.next_start:
                self._alarm(site.next_start, site)
                return
            self._start(site, queue.popleft(), now)
        if site.is_asking or not (site.urgent or site.waiting):
            self._give_back_starts(site)
        elif site.urgent or not site.fetching_policy:  # while the policy is fetched, rows wait for `learn_policy`
            self._ask(site, now)

    def _startable(self, site: Site) -> deque[Fetch]:
        """Return the queue that holds the site's next request, or an empty queue if no request may start.

        Until the site's policy is known, only the policy requests in `urgent` may start.
        """
        return site.urgent if site.urgent or self._lacks_policy(site) else site.waiting

    def _start(self, site: Site, fetch: Fetch, now: float) -> None:
        site.starts -= 1
        site.next_start = now + site.interval_s
        fetch.waited_s += now - max(fetch.queued_at, site.progress_at)
        self._open[site.host] = self._open.get(site.host, 0) + 1
        self.starting.append(fetch)

    def _give_back_starts(self, site: Site) -> None:
        if site.starts:
            self._report(site.host, site.starts)
            site.starts = 0

    def _ask(self, site: Site, now: float) -> None:
        """Ask the rate limiter for starts or for the policy, or set an alarm if it is too early to ask."""
        if now < site.ask_at:
            self._alarm(site.ask_at, site)
        elif not site.starts or self._lacks_policy(site):
            site.is_asking = True
            self._asking.append(site)

    def _lacks_policy(self, site: Site) -> bool:
        return self._needs_policy and site.policy is None

    def _refusal(self, site: Site, fetch: Fetch, now: float) -> str | None:
        if site.policy is None or now >= site.policy_until:
            return None
        return site.policy.refusal(fetch.url.path)

    def _take_policy(self, site: Site, policy: Policy, now: float) -> None:
        site.policy, site.policy_until = policy, now + policy.ttl_s
        kept: deque[Fetch] = deque()
        for fetch in site.waiting:
            failure = policy.refusal(fetch.url.path)
            if failure is None:
                kept.append(fetch)
            else:
                self.refused.append((fetch, failure))
        site.waiting = kept

    def _drop_refused(self, site: Site, refused: dict[int, str]) -> None:
        kept: deque[Fetch] = deque()
        for fetch in site.waiting:
            if fetch.key in refused:
                self.refused.append((fetch, refused[fetch.key]))
            else:
                kept.append(fetch)
        site.waiting = kept

    def _is_late(self, site: Site, fetch: Fetch, starts_at: float) -> bool:
        """Return whether a row would have waited longer than `max_wait_s` if it started at `starts_at`."""
        return fetch.waited_s + starts_at - max(fetch.queued_at, site.progress_at) > self._max_wait_s

    def _refuse_late(self, site: Site, starts_at: float) -> None:
        """Refuse the rows that would have waited longer than `max_wait_s` at the time `starts_at`."""
        for queue in (site.waiting, site.urgent):
            for fetch in [fetch for fetch in queue if self._is_late(site, fetch, starts_at)]:
                queue.remove(fetch)
                self.refused.append((fetch, fetch.failure or "host_busy"))

    def _report(self, host: str, ended: int, trouble: bool = False, rest_s: float = 0.0, answered: bool = False) -> None:
        old = self._reports.get(host)
        if old is not None:
            ended, trouble, rest_s = ended + old.ended, trouble or old.trouble, max(rest_s, old.rest_s)
            answered = answered or old.answered
        self._reports[host] = HostReport(host, ended, trouble, rest_s, answered)

    def _alarm(self, when: float, site: Site) -> None:
        heapq.heappush(self._alarms, (when, next(self._counter), site))

    def _site(self, origin: str, host: str) -> Site:
        site = self._sites.get(origin)
        if site is None:
            if len(self._sites) >= KEPT_SITES:
                for old in [old for old in itertools.islice(self._sites.values(), 100) if old.is_idle()]:
                    del self._sites[old.origin]
                    self._by_host[old.host].remove(old)
                    if not self._by_host[old.host]:
                        del self._by_host[old.host]
            site = self._sites[origin] = Site(origin, host)
            self._by_host.setdefault(host, []).append(site)
        self._sites.move_to_end(origin)
        return site
