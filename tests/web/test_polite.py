"""robots.txt, opt-outs, block lists and rate limits are obeyed. The test servers count requests."""

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers import LoopbackServer, Request, Route, Wire, after, endless, hang, head, in_turn, nobody, redirect, reply
from tests.web.ask import PATIENCE_S, Leaping, ask, ask_client, ask_one, failures, options, wait_until
from vlmdata.web.client import Client
from vlmdata.web.fetch import Fetched
from vlmdata.web.rate_limiter import Ask, Grant, HostReport, News, RateLimiter
from vlmdata.web.robots import MAX_BYTES


def robots(text: str) -> dict[str, Route]:
    return {"/robots.txt": reply(text.encode()), "/a": reply(b"a"), "/b": reply(b"b")}


def test_paths_that_robots_txt_disallows_are_never_fetched() -> None:
    with LoopbackServer(robots("User-agent: *\nDisallow: /a\n")) as server:
        assert failures(ask([server.url("/a"), server.url("/b"), server.url("/a?x")])) == ["robots", None, "robots"]
        assert server.paths() == ["/robots.txt", "/b"]


def test_a_recipe_may_turn_robots_txt_off() -> None:
    with LoopbackServer(robots("User-agent: *\nDisallow: /a\n")) as server:
        assert ask_one(server.url("/a"), robots=False).body == b"a"
        assert server.paths() == ["/a"]


def test_the_agent_is_addressed_by_its_name() -> None:
    with LoopbackServer(robots("User-agent: shapelab\nDisallow: /\n\nUser-agent: *\nAllow: /\n")) as server:
        assert ask_one(server.url("/a"), agent="ShapeLab").failure == "robots"
        assert ask_one(server.url("/a")).failure is None


def test_each_port_and_scheme_has_a_separate_robots_txt() -> None:
    with LoopbackServer(robots("User-agent: *\nDisallow: /")) as strict, LoopbackServer(robots("")) as free:
        assert failures(ask([strict.url("/a"), free.url("/a")])) == ["robots", None]


def test_robots_txt_applies_to_every_hop() -> None:
    with LoopbackServer(robots("User-agent: *\nDisallow: /a"), host="127.0.0.2") as strict:
        with LoopbackServer({"/to": redirect(strict.url("/a"))}) as server:
            assert ask_one(server.url("/to")).failure == "robots"
        assert strict.paths() == ["/robots.txt"]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (reply(b"", 404), None),
        (reply(b"", 403), None),
        (reply(b"", 401), None),
        (reply(b"", 200), None),
        (reply(b"<html>", 200), None),
        (redirect("/robots.txt"), None),  # a loop: unavailable
        (redirect("/elsewhere"), "robots"),
        (redirect("file:///etc/passwd"), None),
        (reply(b"", 500), "robots_unreachable"),
        (reply(b"", 503), "robots_unreachable"),
        (hang, "robots_unreachable"),
        (lambda request, wire: False, "robots_unreachable"),
        (reply(b"", 429), "http_429"),
        (reply(b"User-agent: *\nDisallow: /a\n" + b"#" * MAX_BYTES), "robots"),
        (endless(b"User-agent: *\nDisallow: /a\n", before=head(200)), "robots"),
    ],
)
def test_the_answer_to_robots_txt_decides_whether_a_page_is_fetched(answer: Route, failure: str | None) -> None:
    routes = {**robots(""), "/robots.txt": answer, "/elsewhere": reply(b"User-agent: *\nDisallow: /a")}
    with LoopbackServer(routes) as server:
        fetched = ask([server.url("/a")] * 3, timeout_s=0.5 if answer is hang else 60.0)
        assert failures(fetched) == [failure] * 3
        assert server.paths().count("/a") == (3 if failure is None else 0)


def test_robots_txt_may_be_five_redirects_away() -> None:
    hops = {f"/{n}": redirect(f"/{n + 1}") for n in range(1, 5)}
    routes = {**robots(""), **hops, "/robots.txt": redirect("/1"), "/5": reply(b"User-agent: *\nDisallow: /a")}
    with LoopbackServer(routes) as server:
        assert ask_one(server.url("/a")).failure == "robots"


def test_an_unreachable_site_gets_one_request_for_all_its_rows() -> None:
    ended: list[int] = []

    class Noting(RateLimiter):
        def exchange(
            self, worker: str, asks: Sequence[Ask], reports: Sequence[HostReport], news: Sequence[News]
        ) -> list[Grant]:
            ended.extend(report.ended for report in reports)
            return super().exchange(worker, asks, reports, news)

    with nobody() as site:
        assert failures(ask([f"{site}/{n}" for n in range(50)], rate_limiter=Noting(options()))) == ["connect_failed"] * 50
    assert sum(ended) == 1


@pytest.mark.parametrize(
    ("headers", "failure"),
    [
        ({"X-Robots-Tag": "noai"}, "noai"),
        ({"X-Robots-Tag": "noindex"}, "noindex"),
        ({"X-Robots-Tag": "otherbot: noai"}, None),
        ({"X-Robots-Tag": "vlmdata: noml"}, "noai"),
        ({"TDM-Reservation": "1"}, "tdm_reserved"),
        ({"TDM-Reservation": "0"}, None),
    ],
)
def test_a_body_that_opts_out_is_not_read(headers: dict[str, str], failure: str | None) -> None:
    answer = endless(before=head(200, headers.items())) if failure else reply(b"a", headers=headers)
    with LoopbackServer({"/a": answer}) as server:
        fetched = ask_one(server.url("/a"))
        assert fetched.failure == failure
        assert fetched.headers == tuple((name.lower(), value) for name, value in headers.items())


def test_all_workers_remember_a_refusal() -> None:
    with LoopbackServer({"/a": reply(b"a", headers={"X-Robots-Tag": "noai"}), "/b": reply(b"b")}) as server:
        rate_limiter = RateLimiter(options())
        for _ in range(3):  # a new client each time, as for another worker
            assert failures(ask([server.url("/a"), server.url("/b")], rate_limiter=rate_limiter)) == ["noai", None]
        assert server.paths().count("/a") == 1 and server.paths().count("/robots.txt") == 1


def test_tdmrep_json_is_fetched_if_the_recipe_requests_it() -> None:
    rules = b'[{"location": "/a", "tdm-reservation": 1}]'
    with LoopbackServer({**robots(""), "/.well-known/tdmrep.json": reply(rules)}) as server:
        assert failures(ask([server.url("/a"), server.url("/b")], tdm_file=True)) == ["tdm_reserved", None]
        assert server.paths() == ["/robots.txt", "/.well-known/tdmrep.json", "/b"]
        assert failures(ask([server.url("/a")], tdm_file=True, robots=False)) == ["tdm_reserved"]
        assert ask_one(server.url("/a")).failure is None


def test_block_lists_apply_before_anything_is_sent(tmp_path: Path) -> None:
    listed = tmp_path / "hosts.txt"
    listed.write_text("# malware\n0.0.0.0 bad.example\nhttp://127.0.0.1/exact\n\n", encoding="utf-8")
    with LoopbackServer({"/a": reply(b"a"), "/to": redirect("http://sub.bad.example/x")}) as server:
        urls = [
            "http://bad.example/",
            "https://sub.bad.example:8/x",
            "http://127.0.0.1/exact#x",
            "http://evil.example/",
            server.url("/b"),
            server.url("/a"),
            server.url("/to"),
            "http://notbad.example/",
        ]
        fetched = ask(
            urls,
            block_files=(str(listed),),
            blocked_domains=("evil.example",),
            blocked_urls=(server.url("/b"),),
            robots=False,
            lookup=lambda host: [],
        )
        assert failures(fetched) == ["blocked"] * 5 + [None, "blocked", "dns_failed"]
        assert sorted(server.paths()) == ["/a", "/to"]


def test_an_unreadable_block_list_is_reported_with_its_place(tmp_path: Path) -> None:
    listed = tmp_path / "hosts.txt"
    listed.write_text("good.example\nhttp://\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"hosts.txt, line 2: 'http://'"):
        ask([], block_files=(str(listed),))
    with pytest.raises(ValueError, match="blocked_domains: 'a/b'"):
        ask([], blocked_domains=("a/b",))


def test_a_host_gets_at_most_host_connections_over_all_workers() -> None:
    def when_three_have_come(request: Request, wire: Wire) -> bool:
        wait_until(lambda: server.most_at_once >= 3)
        return after(0.02, reply(b"x"))(request, wire)

    with LoopbackServer({"/robots.txt": reply(b"")}, default=when_three_have_come) as server:
        chosen = options(host_connections=3)
        rate_limiter = RateLimiter(chosen)
        clients = [Client(chosen, rate_limiter) for _ in range(3)]
        done: list[str | None] = []
        for client in clients:
            for n in range(20):
                client.submit(server.url(f"/{n}"), lambda fetched: done.append(fetched.failure))
        wait_until(lambda: len(done) == 60)
        for client in clients:
            client.close()
        assert done == [None] * 60
        assert server.most_at_once == 3


def test_at_most_run_connections_are_under_way() -> None:
    """Five hosts with six slots each and three clients never have more than four requests at once."""
    busy = {"now": 0, "most": 0}
    lock = threading.Lock()

    def count(request: Request, wire: Wire) -> bool:
        with lock:
            busy["now"] += 1
            busy["most"] = max(busy["most"], busy["now"])
        wait_until(lambda: busy["most"] >= 2)
        time.sleep(0.02)
        with lock:
            busy["now"] -= 1
        return reply(b"x")(request, wire)

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(LoopbackServer(default=count, host=f"127.0.0.{n}")) for n in range(1, 6)]
        chosen = options(run_connections=4, robots=False)
        rate_limiter = RateLimiter(chosen)
        clients = [Client(chosen, rate_limiter) for _ in range(3)]
        for client in clients:
            stack.callback(client.close)
        ended: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for n in range(60):
            clients[n % 3].submit(servers[n % 5].url(f"/{n}"), lambda fetched: ended.put(fetched.failure))
        assert [ended.get(timeout=PATIENCE_S) for _ in range(60)] == [None] * 60
    assert 2 <= busy["most"] <= 4


def test_a_host_gets_at_most_its_requests_per_second() -> None:
    with LoopbackServer(default=reply(b"x")) as server:
        start = time.monotonic()
        fetched = ask([server.url(f"/{n}") for n in range(11)], host_requests_per_s=20.0, robots=False)
        assert failures(fetched) == [None] * 11
        came = sorted(request.at - start for request in server.requests)  # a busy server records a request late
        assert all(at >= n / 20 - 0.01 for n, at in enumerate(came))


def test_crawl_delay_slows_only_its_host() -> None:
    with LoopbackServer(robots("User-agent: *\nCrawl-delay: 0.2\n")) as slow:
        assert failures(ask([slow.url("/a"), slow.url("/b"), slow.url("/a")])) == [None] * 3
        first, *times = (request.at for request in slow.requests)
        assert times[1] - first >= 0.19 and times[2] - first >= 0.39
    with (
        LoopbackServer(robots("User-agent: *\nCrawl-delay: 3000\n")) as slow,
        LoopbackServer(robots(""), host="127.0.0.2") as fast,
    ):
        chosen = options(max_wait_s=10_000.0)
        client = Client(chosen, RateLimiter(chosen))
        for path in ("/a", "/b"):
            client.submit(slow.url(path), lambda fetched: None)
        assert failures(ask_client(client, [fast.url("/a")] * 20)) == [None] * 20
        client.close()
        assert slow.paths().count("/b") == 0


def test_retry_after_applies_to_the_whole_host() -> None:
    busy = in_turn(reply(b"", 429, {"Retry-After": "1"}), reply(b"a"))
    with LoopbackServer({**robots(""), "/a": busy}) as server:
        fetched = ask([server.url("/a")] + [server.url("/b")] * 5, host_connections=1, retries=1)
        assert failures(fetched) == [None] * 6
        assert server.paths()[:2] == ["/robots.txt", "/a"] and len(server.requests) == 8
        assert server.requests[2].at - server.requests[1].at >= 0.99


def test_a_retry_after_longer_than_a_row_may_wait_ends_its_rows_at_once() -> None:
    with LoopbackServer({**robots(""), "/a": reply(b"", 503, {"Retry-After": "3600"})}) as server:
        urls = [server.url("/a")] + [server.url("/b")] * 5
        fetched = ask(urls, host_connections=1, retries=2, max_wait_s=1000.0)  # longer than `ask` waits
        assert failures(fetched) == ["http_503"] + ["host_busy"] * 5
        assert server.paths() == ["/robots.txt", "/a"]


def test_a_temporary_failure_is_retried_and_a_final_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmdata.web.client.retry_delay_s", lambda attempts: 0.0)
    routes = {
        "/robots.txt": reply(b""),
        "/500": in_turn(reply(b"", 500), reply(b"", 502), reply(b"at last")),
        "/reset": in_turn(lambda request, wire: False, reply(b"at last")),
        "/404": in_turn(reply(b"", 404), reply(b"too late")),
        "/always": reply(b"", 500),
    }
    with LoopbackServer(routes) as server:
        fetched = ask([server.url(path) for path in list(routes)[1:]], retries=2)
        assert failures(fetched) == [None, None, "http_404", "http_500"]
        assert [server.paths().count(path) for path in ("/500", "/404", "/always")] == [3, 1, 3]


def test_waits_between_attempts_count_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first delay is at most one second, so six seconds allow another attempt."""
    clock = Leaping(monkeypatch)
    with LoopbackServer(default=reply(b"", 500)) as server:
        chosen = options(robots=False, retries=1000, max_wait_s=6.0, timeout_s=1e9)  # the clock also leaps during a request
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []
        client.submit(server.url("/a"), done.append)
        while not done:
            clock.leap(0.25, client)
        client.close()
        assert failures(done) == ["http_500"]
        assert 2 <= len(server.requests) < 1000


def test_a_slow_host_ends_its_rows_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, may_answer = Leaping(monkeypatch), threading.Event()

    def slow(request: Request, wire: Wire) -> bool:
        may_answer.wait(PATIENCE_S)
        return reply(b"slow")(request, wire)

    with LoopbackServer(default=slow) as server:
        chosen = options(host_connections=2, robots=False, timeout_s=1e9)
        client = Client(chosen, RateLimiter(chosen))
        done: list[Fetched] = []
        for number in range(30):
            client.submit(server.url(f"/{number}"), done.append)
        wait_until(lambda: len(server.requests) == 2)
        clock.leap(chosen.max_wait_s + 1, client)
        wait_until(lambda: len(done) == 28)
        may_answer.set()
        wait_until(lambda: len(done) == 30)
        client.close()
        assert failures(done) == ["host_busy"] * 28 + [None] * 2


def test_a_host_pauses_after_503_without_retry_after() -> None:
    """After 503 without Retry-After, the host's other rows wait about a second."""

    def busy(request: Request, wire: Wire) -> bool:
        wire.send(head(503, [("Content-Length", "0")]))
        return True

    with LoopbackServer({**robots(""), "/a": busy}) as server:
        chosen = options(host_connections=1)
        client = Client(chosen, RateLimiter(chosen))
        assert failures(ask_client(client, [server.url("/a"), server.url("/b")])) == ["http_503", None]
        client.close()
        assert server.requests[-1].at - server.requests[-2].at > 0.4
