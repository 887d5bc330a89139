"""The web client of one worker: every submitted address gets exactly one outcome, whatever the server does.

The client parses the address of a row and checks it against the block lists. The row then waits for the rate limiter
(`turns`). Then the client resolves the host name (`dns`) and transfers the body. This gives the outcome, unless the server
redirects the row or the transfer is to be repeated after a delay. In these two cases, the row waits for the rate limiter again.
One thread does all this. Other threads only submit rows.
"""

import heapq
import itertools
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

import pycurl

from vlmdata.process.thread import Thread, attempt
from vlmdata.web.blocked_hosts import BlockedHosts
from vlmdata.web.curl_loop import CurlLoop
from vlmdata.web.dns import DnsAnswer, Lookup, Resolver, system_lookup
from vlmdata.web.fetch import Fetch, Fetched, url_key
from vlmdata.web.options import WebOptions
from vlmdata.web.outcomes import REFUSALS, is_passing
from vlmdata.web.policy_fetch import MAX_REDIRECTS, PolicyFetch
from vlmdata.web.rate_limiter import Grant
from vlmdata.web.rate_limiter_link import RateLimiterLike, RateLimiterLink
from vlmdata.web.retry_delay import retry_after_s, retry_delay_s
from vlmdata.web.transfer import KEPT_HEADERS, Budget, Transfer
from vlmdata.web.turns import Site, Turns
from vlmdata.web.url import Url, is_literal, join_url, parse_url

__all__ = ["Client", "Fetched", "WebOptions"]

Done = Callable[[Fetched], None]

SCAN_S = 0.1  # seconds between checks of deadlines; a row can exceed its deadline by this time
EXPIRE_S = 0.5  # seconds between checks while no transfer and no lookup is in progress
HEARTBEAT_S = 5.0
_HOST_TROUBLE = frozenset({"http_429", "http_503", "connect_timeout"})  # signs of an overloaded host


class Client:
    """Fetches addresses for all partitions that a worker has open. `lookup` replaces the system's resolver."""

    def __init__(self, options: WebOptions, rate_limiter: RateLimiterLike, *, lookup: Lookup = system_lookup) -> None:
        self._options = options
        self._blocks = BlockedHosts(options)
        self.budget = Budget(options.bytes_in_flight)  # public for tests
        self._turns = Turns(needs_policy=options.robots or options.tdm_file, max_wait_s=options.max_wait_s)
        self._loop = CurlLoop(options.connections)
        self._limiter_link = RateLimiterLink(
            rate_limiter, uuid.uuid4().hex, lambda grants: self._post(lambda: self._take_grants(grants))
        )
        self._resolver = Resolver(lambda host, answer: self._post(lambda: self._resolved(host, answer)), lookup)
        self._room = threading.Condition()  # guards the next five attributes
        self._submitted: deque[tuple[str, Url | None, Done, BinaryIO | None]] = deque()
        self._posted: deque[Callable[[], None]] = deque()
        self._pending = 0  # number of rows that may start by the rate limiter but have no transfer yet
        self._closing = False
        self._broken: BaseException | None = None
        self._ready: deque[tuple[Fetch, tuple[str, ...]]] = deque()
        self._resolving: dict[str, list[tuple[Fetch, float]]] = {}
        self._retries: list[tuple[float, int, Fetch]] = []
        self._active: dict[pycurl.Curl, Transfer] = {}
        self._idle: list[Transfer] = []
        self._counter = itertools.count()
        self._rows = 0  # number of rows that are submitted, not blocked, and not done
        self._next_scan = self._next_heartbeat = 0.0
        _keep_freed_memory()
        self._thread = Thread(self._run, name="web-client")
        self._thread.start()

    def submit(self, url: str, done: Done, sink: BinaryIO | None = None) -> None:
        """Fetch an address, and call `done` once on the client's thread. `done` must not block.

        The body is written to `sink`, a seekable file whose `write` must not raise, and is then not in memory. Without a sink
        the outcome holds the body.

        The call blocks while 2 * `connections` rows wait for a connection. Rows that wait for the rate limiter are not counted
        among them. No row gets a connection while bodies fill `bytes_in_flight`. Do not call `submit` inside `done`, because
        this would block the client.
        """
        parsed = parse_url(url)
        with self._room:
            while not self._closing and len(self._submitted) + self._pending >= 2 * self._options.connections:
                self._room.wait()
            if not self._closing:
                self._submitted.append((url, parsed, done, sink))
                self._loop.wake()
                return
        done(Fetched(url, None, "closed"))

    def hold(self, size: int) -> None:
        """Count a body of `size` bytes as in flight until `release`, even after `done` has returned. Call it inside `done`."""
        self.budget.used += size
        self.budget.held += size

    def release(self, size: int) -> None:
        """End a `hold` of `size` bytes. Any thread may call it."""
        self._post(lambda: self.hold(-size))

    def close(self) -> None:
        """Stop the client. Rows that are not done end as `closed`.

        Raise RuntimeError if the client or a `done` function failed.
        """
        with self._room:
            if not self._closing:
                self._closing = True
                self._loop.wake()
            self._room.notify_all()
        self._thread.join()
        if self._broken is not None:
            raise RuntimeError("the web client stopped early") from self._broken

    def _post(self, call: Callable[[], None]) -> None:
        """Run `call` on the client's thread, unless the client is closing."""
        with self._room:
            if not self._closing:
                self._posted.append(call)
                self._loop.wake()

    @property
    def has_ended(self) -> bool:
        """Whether the client's thread has ended. A row that has no outcome by then never gets one."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        for work in (self._serve, self._shut):
            attempt(work, self._break)

    def _break(self, error: BaseException) -> None:
        """Keep the first error of the client or of a `done` function. `close` raises it."""
        self._broken = self._broken or error

    def _serve(self) -> None:
        while not self._closing:
            self._pass()

    def _pass(self) -> None:
        for curl, code, message in self._loop.turn(self._idle_s()):
            self._conclude(self._active.pop(curl), code, message)
        now = time.monotonic()
        self._take_inbox(now)
        while self._retries and self._retries[0][0] <= now:
            fetch = heapq.heappop(self._retries)[2]
            fetch.waited_s += now - fetch.queued_at
            self._turns.add(fetch, now)
        if now >= self._next_scan:
            self._scan(now)
        self._turns.advance(now)
        self._exchange(now)
        self._turns.advance(now)
        self._act_on_turns(now)
        self._begin_transfers(now)

    def _idle_s(self) -> float:
        """Return the seconds until the next timer. A socket or another thread may wake the client earlier."""
        now = time.monotonic()
        if self._turns.has_work or (self._turns.has_messages and self._limiter_link.is_free):
            return 0.0
        until = self._next_heartbeat
        if self._rows:
            until = min(until, self._next_scan + (0.0 if self._active or self._resolving else EXPIRE_S))
        if self._retries:
            until = min(until, self._retries[0][0])
        alarm = self._turns.next_alarm()
        if alarm is not None:
            until = min(until, alarm)
        return until - now

    def _take_inbox(self, now: float) -> None:
        with self._room:
            submitted, self._submitted = self._submitted, deque()
            posted, self._posted = self._posted, deque()
        for call in posted:
            call()
        for text, url, done, sink in submitted:
            if url is None:
                done(Fetched(text, None, "bad_url"))
            elif self._blocks.blocks(url):
                done(Fetched(text, None, "blocked", final_url=url.text))
            else:
                self._rows += 1
                self._turns.add(Fetch(text, url, done, url_key(url), sink=sink), now)

    def _exchange(self, now: float) -> None:
        if self._limiter_link.is_free and (self._turns.has_messages or now >= self._next_heartbeat):
            self._next_heartbeat = now + HEARTBEAT_S
            grants = self._limiter_link.send(self._turns.messages())
            if grants is not None:
                self._turns.take(grants, now)

    def _take_grants(self, grants: list[Grant] | BaseException) -> None:
        if isinstance(grants, BaseException):
            raise grants
        self._limiter_link.is_free = True
        self._turns.take(grants, time.monotonic())

    def _act_on_turns(self, now: float) -> None:
        turns = self._turns
        while turns.refused or turns.policy_wanted or turns.starting:
            refused, turns.refused = turns.refused, []
            for fetch, failure in refused:
                self._finish(fetch, failure)
            wanted, turns.policy_wanted = turns.policy_wanted, []
            for site in wanted:
                self._fetch_policy(site)
            starting, turns.starting = turns.starting, []
            for fetch in starting:
                self._look_up(fetch, now)
            turns.advance(now)

    def _look_up(self, fetch: Fetch, now: float) -> None:
        """Resolve the host of a row, and then queue the row for a transfer."""
        url = fetch.url
        if self._options.proxy or is_literal(url.host):
            # with a proxy, the guard at the socket sees only the proxy's address
            if self._options.proxy and is_literal(url.host) and not self._options.reaches(url.host, url.port, url.host):
                self._end(fetch, "private_address", now)
            else:
                self._ready.append((fetch, ()))
            return
        answer = self._resolver.ask(url.host)
        if answer is None:
            self._resolving.setdefault(url.host, []).append((fetch, now))
        else:
            self._take_answer(fetch, answer, now)

    def _resolved(self, host: str, answer: DnsAnswer) -> None:
        for fetch, _ in self._resolving.pop(host, ()):
            self._take_answer(fetch, answer, time.monotonic())

    def _take_answer(self, fetch: Fetch, answer: DnsAnswer, now: float) -> None:
        if answer.failure is None:
            self._ready.append((fetch, answer.addresses))
        else:
            self._end(fetch, answer.failure, now)

    def _begin_transfers(self, now: float) -> None:
        if self.budget.paused:
            for transfer in list(self._active.values()):
                if transfer.paused_at and (self.budget.used < self.budget.limit or not self._may_pause(transfer)):
                    transfer.resume(now)
        while self._ready and len(self._active) < self._options.connections and self.budget.used < self.budget.limit:
            fetch, addresses = self._ready.popleft()
            transfer = self._idle.pop() if self._idle else Transfer(self._options, self.budget, self._may_pause)
            transfer.begin(fetch, addresses, now)
            self._active[transfer.curl] = transfer
            self._loop.add(transfer.curl)
        with self._room:
            self._pending = len(self._ready) + sum(map(len, self._resolving.values()))
            if len(self._submitted) + self._pending <= self._options.connections:  # half the limit at which submit blocks
                self._room.notify_all()

    def _may_pause(self, transfer: Transfer) -> bool:
        """Return whether a transfer may pause because its next bytes exceed the memory budget.

        It may if the caller holds bytes or the body of another transfer began earlier, because bytes will then be freed later.
        The transfer whose body began first never waits for another transfer, so at least one transfer continues.
        """
        begun = (other.number for other in self._active.values() if other.number)
        return self.budget.held > 0 or min(begun, default=transfer.number) < transfer.number

    def _scan(self, now: float) -> None:
        """End the transfers, lookups and waits that have taken too long."""
        self._next_scan = now + SCAN_S
        for transfer in list(self._active.values()):
            if transfer.fetch.spent_s + transfer.active_s(now) > self._options.timeout_s:
                del self._active[transfer.curl]
                transfer.failure = "timeout"
                self._conclude(transfer, 28, "")
        for host, fetches in list(self._resolving.items()):
            late = [entry for entry in fetches if now - entry[1] > self._options.connect_timeout_s]
            for entry in late:
                fetches.remove(entry)
                self._end(entry[0], "dns_timeout", now)
            if not fetches:
                del self._resolving[host]
        self._turns.expire(now)

    def _conclude(self, transfer: Transfer, code: int, message: str) -> None:
        """Turn a finished transfer into an outcome, another hop or another attempt. `code` and `message` are libcurl's."""
        now = time.monotonic()
        self._loop.remove(transfer.curl)
        fetch = transfer.fetch
        fetch.status = transfer.status
        fetch.spent_s += transfer.active_s(now)
        failure, body = transfer.outcome(code, message)
        fetch.content_type = transfer.header("content-type")
        fetch.headers = tuple(header for header in transfer.headers if header[0] in KEPT_HEADERS)
        location, retry_after, date = (transfer.header(name) for name in ("location", "retry-after", "date"))
        transfer.end()
        self._idle.append(transfer)
        if failure is not None:
            self._end(fetch, failure, now, retry_after_s(retry_after, date) if retry_after else 0.0)
            return
        self._turns.ended(fetch.url.host, answered=True)
        if body is not None:
            self._finish(fetch, None, body)
        else:
            self._redirect(fetch, location, now)

    def _redirect(self, fetch: Fetch, location: str, now: float) -> None:
        url = join_url(fetch.url, location)
        fetch.hops += 1
        if fetch.hops > (MAX_REDIRECTS if fetch.is_policy else self._options.max_redirects):
            self._finish(fetch, "too_many_redirects")
        elif url is None:
            self._finish(fetch, "bad_redirect")
        elif self._blocks.blocks(url):
            fetch.url = url
            self._finish(fetch, "blocked")
        else:
            fetch.url = url
            self._turns.add(fetch, now)

    def _end(self, fetch: Fetch, failure: str, now: float, rest_s: float = 0.0) -> None:
        """Retry a row whose attempt failed, or finish it with the failure. `rest_s` is the host's Retry-After in seconds."""
        trouble = failure in _HOST_TROUBLE or (failure == "timeout" and not fetch.status)
        self._turns.ended(fetch.url.host, trouble=trouble, rest_s=rest_s if trouble else 0.0, answered=fetch.status > 0)
        fetch.attempts += 1
        if is_passing(failure) and fetch.attempts <= self._options.retries:
            delay_s = max(rest_s, retry_delay_s(fetch.attempts))
            if fetch.waited_s + delay_s <= self._options.max_wait_s:
                fetch.failure, fetch.queued_at, fetch.spent_s = failure, now, 0.0
                heapq.heappush(self._retries, (now + delay_s, next(self._counter), fetch))
                return
        self._finish(fetch, failure)

    def _finish(self, fetch: Fetch, failure: str | None, body: bytes | None = None) -> None:
        if not fetch.is_policy:
            self._rows -= 1
            if failure in REFUSALS:
                self._turns.learn_refusal(fetch.key, failure)
        fetch.done(Fetched(fetch.text, body, failure, fetch.status, fetch.url.text, fetch.content_type, fetch.headers))

    def _fetch_policy(self, site: Site) -> None:
        PolicyFetch(
            site,
            self._options,
            lambda fetch: self._turns.add(fetch, time.monotonic()),
            lambda site, policy: self._turns.learn_policy(site, policy, time.monotonic()),
        ).begin()

    def _shut(self) -> None:
        with self._room:
            self._closing = True
            submitted, self._submitted = self._submitted, deque()
            self._room.notify_all()
        for transfer in self._active.values():
            self._loop.remove(transfer.curl)
        fetches = [transfer.fetch for transfer in self._active.values()]
        fetches += [fetch for fetch, _ in self._ready]
        fetches += [fetch for waiting in self._resolving.values() for fetch, _ in waiting]
        fetches += [fetch for _, _, fetch in self._retries]
        fetches += [*self._turns.drain(), *(fetch for fetch, _ in self._turns.refused), *self._turns.starting]
        for fetch in fetches:
            self._finish_as_closed(fetch.done, fetch.text)
        for text, _, done, _ in submitted:
            self._finish_as_closed(done, text)
        self._resolver.close()
        self._limiter_link.close(self._turns.messages())
        self._loop.close()

    def _finish_as_closed(self, done: Done, text: str) -> None:
        attempt(lambda: done(Fetched(text, None, "closed")), self._break)  # an error of one row must not stop the others


def _keep_freed_memory() -> None:
    """Make glibc keep up to 32 MB of freed memory, by freeing one large block.

    Otherwise, glibc returns the free end of its heap to the system after each body. The page faults that follow take 0.05 ms
    per body, which is as much time as receiving the body takes. The block takes no memory, because it is never written to.
    """
    bytes(16_000_000)
