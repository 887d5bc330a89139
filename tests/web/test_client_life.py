"""Every submitted row gets one outcome: with many connections and threads, on close, and after errors."""

import threading
from collections.abc import Callable, Iterable, Sequence

import pytest

from tests.servers import LoopbackServer, Request, Wire, after, drip, endless, hang, head, reply
from tests.web.ask import LOOPBACK, PATIENCE_S, Leaping, ask, ask_client, failures, options, wait_until
from vlmdata.web.client import Client
from vlmdata.web.fetch import Fetched
from vlmdata.web.rate_limiter import Ask, Grant, HostReport, News, RateLimiter


class RemoteRateLimiter:
    """A rate limiter in another process, whose calls return after `wait` and may fail. `started` counts granted requests."""

    is_local = False

    def __init__(self, rate_limiter: RateLimiter, wait: Callable[[], None] = lambda: None) -> None:
        self.rate_limiter, self.wait, self.calls, self.started, self.is_lost = rate_limiter, wait, 0, 0, False

    def exchange(self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]) -> list[Grant]:
        self.wait()
        self.calls += 1
        if self.is_lost:
            raise ConnectionError("the rate limiter died")
        grants = self.rate_limiter.exchange(worker, asks, reports, news)
        self.started += sum(grant.starts for grant in grants)
        return grants


def test_connections_are_kept_alive() -> None:
    with LoopbackServer(default=reply(b"x")) as server:
        assert failures(ask([server.url(f"/{n}") for n in range(200)], host_connections=2)) == [None] * 200
        assert server.connections <= 2


def test_a_connection_that_the_server_closed_meanwhile_causes_no_failure() -> None:
    def once(request: Request, wire: Wire) -> bool:
        wire.send(head(200, [("Content-Length", "1")]) + b"x")
        return False  # without saying Connection: close

    with LoopbackServer(default=once) as server:
        chosen = options(host_connections=1)
        client = Client(chosen, RateLimiter(chosen))
        for _ in range(5):
            assert failures(ask_client(client, [server.url("/a")])) == [None]
            wait_until(lambda: not server.open_connections)
        client.close()


def test_a_row_submitted_while_the_client_is_busy_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `done` submits the next row while the client's thread is busy; no timer would wake the client for it."""
    for timer in ("SCAN_S", "EXPIRE_S", "HEARTBEAT_S"):
        monkeypatch.setattr(f"vlmdata.web.client.{timer}", 1e6)
    with LoopbackServer(default=reply(b"x")) as server:
        chosen = options(robots=False)
        client = Client(chosen, RateLimiter(chosen))
        for n in range(100):
            assert failures(ask_client(client, [server.url(f"/{n}")])) == [None]
        client.close()


def test_many_hosts_at_once() -> None:
    servers = [LoopbackServer(default=after(0.01, reply(b"x")), host=host) for host in LOOPBACK]
    for server in servers:
        server.__enter__()
    try:
        urls = [server.url(f"/{n}") for n in range(20) for server in servers]
        assert failures(ask(urls)) == [None] * len(urls)
        assert max(server.most_at_once for server in servers) <= 6
        assert {server.paths().count("/robots.txt") for server in servers} == {1}
    finally:
        for server in servers:
            server.__exit__(None, None, None)


def test_several_threads_share_one_client() -> None:
    with LoopbackServer(default=reply(b"x")) as server:
        chosen = options(host_connections=0, connections=8)
        client = Client(chosen, RateLimiter(chosen))
        done: list[str] = []
        urls = [[server.url(f"/{part}/{n}") for n in range(100)] for part in range(4)]
        threads = [threading.Thread(target=submit_all, args=(client, some, lambda f: done.append(f.url))) for some in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(done) == 400)
        client.close()
        assert sorted(done) == sorted(url for some in urls for url in some)


def submit_all(client: Client, urls: Iterable[str], done: Callable[[Fetched], None]) -> None:
    for url in urls:
        client.submit(url, done)


def test_closing_ends_every_row_once() -> None:
    looked_up, over = threading.Event(), threading.Event()

    def slow_lookup(host: str) -> list[str]:
        looked_up.set()
        over.wait(PATIENCE_S)
        return ["127.0.0.1"]

    with (
        LoopbackServer({"/hang": hang, "/robots.txt": reply(b"")}, default=reply(b"", 500)) as server,
        LoopbackServer({"/robots.txt": hang}, host="127.0.0.2") as silent,
    ):
        chosen = options(retries=1000, connections=4, host_connections=4)
        client = Client(chosen, RateLimiter(chosen), lookup=slow_lookup)
        done: list[Fetched] = []
        urls = [server.url("/again")] + [server.url("/hang")] * 20 + [silent.url("/a")] * 20 + ["http://late.example/"] * 20
        submit_all(client, urls, done.append)
        wait_until(lambda: {"/again", "/hang"} <= set(server.paths()) and bool(silent.requests) and looked_up.is_set())
        client.close()
        over.set()
        assert failures(done) == ["closed"] * len(urls)
        client.submit(server.url("/late"), done.append)
        assert done[-1].failure == "closed" and len(done) == len(urls) + 1


def test_closing_ends_a_blocked_submit() -> None:
    with LoopbackServer({"/hang": hang}) as server:
        chosen = options(connections=1, host_connections=0, robots=False)
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []
        started: list[str] = []
        urls = (started.append(url) or url for url in [server.url("/hang")] * 50)  # recorded when submitted
        thread = threading.Thread(target=submit_all, args=(client, urls, done.append))
        thread.start()
        wait_until(lambda: len(started) >= 4)  # one row in progress, two that wait for its connection, one that blocks
        client.close()
        thread.join(timeout=PATIENCE_S)
        assert not thread.is_alive() and failures(done) == ["closed"] * 50


def test_closing_gives_leases_back() -> None:
    with LoopbackServer({"/hang": hang}, default=reply(b"x")) as server:
        chosen = options(host_connections=2, robots=False)
        rate_limiter = RateLimiter(chosen)
        client = Client(chosen, rate_limiter)
        for _ in range(5):
            client.submit(server.url("/hang"), lambda fetched: None)
        wait_until(lambda: len(server.requests) == 2)
        client.close()
        assert failures(ask([server.url("/a")] * 3, rate_limiter=rate_limiter, host_connections=2, robots=False)) == [None] * 3


def test_an_error_of_the_caller_stops_the_client_and_close_raises() -> None:
    with LoopbackServer({"/a": reply(b"x"), "/hang": hang}) as server:
        chosen = options(robots=False)
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []

        def wrong(fetched: Fetched) -> None:
            raise KeyError("a mistake")

        client.submit(server.url("/hang"), done.append)
        client.submit(server.url("/a"), wrong)
        wait_until(lambda: bool(done))
        assert failures(done) == ["closed"]
        with pytest.raises(RuntimeError, match="stopped early") as raised:
            client.close()
        assert isinstance(raised.value.__cause__, KeyError)


def test_a_remote_rate_limiter_gets_few_calls_and_loses_no_row() -> None:
    """A call returns once all granted requests have ended, so the next call must report them all."""
    answer = after(0.01, reply(b"x"))
    with LoopbackServer(default=answer) as server, LoopbackServer(default=answer, host="127.0.0.2") as other:
        done: list[Fetched] = []
        chosen = options(host_connections=50, robots=False)
        remote = RemoteRateLimiter(RateLimiter(chosen), wait=lambda: wait_until(lambda: len(done) >= remote.started))
        client = Client(chosen, remote)
        submit_all(client, [site.url(f"/{n}") for n in range(300) for site in (server, other)], done.append)
        wait_until(lambda: len(done) == 600)
        client.close()
        assert failures(done) == [None] * 600
        assert remote.calls < 100  # about 30, and one more for each 0.2 s of waiting for a slot
        assert max(server.most_at_once, other.most_at_once) <= 50


def test_a_dead_rate_limiter_ends_all_rows_and_close_raises() -> None:
    with LoopbackServer(default=reply(b"x")) as server:
        chosen = options(host_connections=6)
        remote = RemoteRateLimiter(RateLimiter(chosen))
        client = Client(chosen, remote)
        done: list[Fetched] = []

        def take(fetched: Fetched) -> None:
            done.append(fetched)
            remote.is_lost = True  # with the first row, when at most six others have started

        for n in range(100):
            client.submit(server.url(f"/{n}"), take)
        wait_until(lambda: len(done) == 100)
        assert set(failures(done)) == {None, "closed"} and len(done) == 100
        with pytest.raises(RuntimeError, match="stopped early"):
            client.close()


def test_bodies_in_flight_are_bounded_and_all_arrive() -> None:
    """Forty bodies of 1 MB in a budget of 2 MB: transfers pause and resume, and none times out."""
    body = bytes(1_000_000)
    with LoopbackServer(default=drip(body, size=100_000, every_s=0.001)) as server:
        chosen = options(bytes_in_flight=2_000_000, host_connections=0, robots=False)
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []
        seen: list[int] = []

        def take(fetched: Fetched) -> None:
            seen.append(client.budget.used)
            client.hold(len(fetched.body or b""))
            done.append(fetched)

        def slow_caller() -> None:
            for n in range(40):
                wait_until(lambda n=n: len(done) > n)  # checks every 5 ms
                client.release(len(done[n].body or b""))

        thread = threading.Thread(target=slow_caller)
        thread.start()
        for n in range(40):
            client.submit(server.url(f"/{n}"), take)
        thread.join(timeout=PATIENCE_S)
        client.close()
        assert [len(one.body or b"") for one in done] == [1_000_000] * 40
        assert max(seen) <= 2_000_000 + 1_000_000 + 131_072
        assert client.budget.used == 0


def test_paused_time_does_not_count_for_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller holds one body for longer than `timeout_s`, while the other transfer is paused."""
    clock = Leaping(monkeypatch)

    def when_both_have_come(request: Request, wire: Wire) -> bool:
        wait_until(lambda: len(server.requests) == 2)
        return reply(bytes(3_000_000))(request, wire)

    with LoopbackServer(default=when_both_have_come) as server:
        chosen = options(bytes_in_flight=1_000_000, host_connections=0, robots=False)
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []

        def take(fetched: Fetched) -> None:
            client.hold(len(fetched.body or b""))
            done.append(fetched)

        for n in range(2):
            client.submit(server.url(f"/{n}"), take)
        wait_until(lambda: len(done) == 1 and client.budget.paused == 1)
        clock.leap(chosen.timeout_s + 1, client)
        client.release(3_000_000)
        wait_until(lambda: len(done) == 2)
        client.close()
        assert failures(done) == [None] * 2


def test_the_transfer_whose_body_begins_later_pauses_also_if_it_was_submitted_first() -> None:
    """Otherwise, both bodies could arrive in full, twice what the budget allows."""
    body, begun = bytes(3_000_000), 900_000

    def later(request: Request, wire: Wire) -> bool:
        wait_until(lambda: client.budget.used >= begun)
        return reply(body)(request, wire)

    def earlier(request: Request, wire: Wire) -> bool:
        wire.send(head(200, [("Content-Length", str(len(body)))]) + body[:begun])
        wait_until(lambda: client.budget.paused == 1)
        wire.send(body[begun:])
        return True

    with LoopbackServer({"/first": later, "/second": earlier}) as server:
        chosen = options(bytes_in_flight=1_000_000, host_connections=0, robots=False)
        client = Client(chosen, RateLimiter(chosen))
        assert failures(ask_client(client, [server.url("/first"), server.url("/second")])) == [None] * 2
        client.close()


def test_rows_of_a_slow_host_do_not_block_submit() -> None:
    with LoopbackServer(default=hang) as slow, LoopbackServer(default=reply(b"x"), host="127.0.0.2") as fast:
        chosen = options(connections=4, host_connections=1, robots=False, timeout_s=1e6, max_wait_s=1e6)
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []
        for n in range(200):
            client.submit(slow.url(f"/{n}"), lambda fetched: None)
        for n in range(50):
            client.submit(fast.url(f"/{n}"), done.append)
        wait_until(lambda: len(done) == 50)
        client.close()
        assert failures(done) == [None] * 50


def test_endless_bodies_in_every_connection_do_not_deadlock() -> None:
    with LoopbackServer(default=endless()) as server:
        urls = [server.url(f"/{n}") for n in range(30)]
        fetched = ask(urls, bytes_in_flight=3_000_000, max_bytes=2_000_000, host_connections=0, robots=False)
        assert failures(fetched) == ["too_large"] * 30


def test_rows_end_although_the_rate_limiter_does_not_answer() -> None:
    over = threading.Event()

    class Silent(RemoteRateLimiter):
        def exchange(
            self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]
        ) -> list[Grant]:
            over.wait(PATIENCE_S)
            return []

    with LoopbackServer(default=reply(b"x")) as server:
        chosen = options(max_wait_s=0.05)
        client = Client(chosen, Silent(RateLimiter(chosen)))
        fetched = ask_client(client, [server.url(f"/{n}") for n in range(500)])
        over.set()
        client.close()
        assert failures(fetched) == ["host_busy"] * 500
