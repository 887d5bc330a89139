"""The client connects only to public addresses, despite names, redirects and resolvers."""

import itertools
import queue
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.servers import LoopbackServer, head, nobody, raw, redirect, reply
from tests.web.ask import PATIENCE_S, Leaping, ask, ask_one, failures, options, wait_until
from vlmdata.web.client import Client
from vlmdata.web.dns import Resolver
from vlmdata.web.fetch import Fetched
from vlmdata.web.rate_limiter import RateLimiter


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_the_client_does_not_connect_to_private_addresses(host: str) -> None:
    with LoopbackServer({"/a": reply(b"secret")}) as server:
        assert ask_one(server.url("/a", host), allowed_hosts=()).failure == "private_address"
        assert server.connections == 0


def test_a_recipe_allows_a_host_by_name_and_by_port() -> None:
    with LoopbackServer({"/a": reply(b"ours")}) as server, LoopbackServer({"/a": reply(b"secret")}) as other:
        allowed = (f"127.0.0.1:{server.port}",)
        fetched = ask([server.url("/a"), other.url("/a"), server.url("/a", "localhost")], allowed_hosts=allowed)
        assert failures(fetched) == [None, "private_address", "private_address"]
        assert other.connections == 0


def test_a_redirect_to_a_private_address_fails() -> None:
    with LoopbackServer({"/secret": reply(b"secret")}, host="127.0.0.2") as inner:
        routes = {"/a": redirect(inner.url("/secret")), "/b": redirect(inner.url("/secret", "[::ffff:127.0.0.2]"))}
        with LoopbackServer(routes) as server:
            fetched = ask([server.url("/a"), server.url("/b")], allowed_hosts=("127.0.0.1",))
            assert failures(fetched) == ["private_address"] * 2
        assert inner.connections == 0


def test_a_name_with_a_private_address_is_refused() -> None:
    with LoopbackServer({"/a": reply(b"secret")}) as server:
        fetched = ask_one(server.url("/a", "rebind.example"), lookup=lambda host: ["127.0.0.1", "::1"])
        assert (fetched.failure, server.connections) == ("private_address", 0)


def test_an_answer_of_the_resolver_that_changes_is_checked_each_time() -> None:
    """The first lookup returns a public address, where nothing answers; the next returns the loopback address."""
    answers = itertools.chain([["192.0.2.1"]], itertools.repeat(["127.0.0.1"]))
    with LoopbackServer({"/a": reply(b"secret")}) as server:
        url = server.url("/a", "rebind.example")
        assert ask_one(url, lookup=lambda host: next(answers), retries=2).failure == "private_address"
        assert ask_one(url, lookup=lambda host: next(answers)).failure == "private_address"
        assert server.connections == 0


def test_a_name_the_recipe_allows_may_be_private() -> None:
    with LoopbackServer({"/a": reply(b"ours")}) as server:
        fetched = ask_one(
            server.url("/a", "mirror.example"), allowed_hosts=("mirror.example",), lookup=lambda host: ["127.0.0.1"]
        )
        assert fetched.body == b"ours"


def test_an_allowed_name_does_not_allow_another_at_the_same_address() -> None:
    """A connection kept alive for the allowed name must not serve the other."""
    with LoopbackServer({"/a": reply(b"ours")}) as server:
        urls = [server.url("/a", "mirror.example"), server.url("/a", "evil.example"), server.url("/a", "mirror.example")]
        fetched = ask(urls, allowed_hosts=("mirror.example",), lookup=lambda host: ["127.0.0.1"])
        assert failures(fetched) == [None, "private_address", None]


def test_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        LoopbackServer(default=reply(b"proxied"), host="127.0.0.2") as proxy,
        LoopbackServer({"/a": reply(b"direct")}) as server,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.2:{proxy.port}")
        assert ask_one(server.url("/a")).body == b"direct"
        assert proxy.connections == 0


def test_the_client_connects_only_to_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with LoopbackServer(default=reply(b"by proxy")) as proxy:
        urls = ["http://a.example/x", "http://b.example/y", "http://10.0.0.1/z", "http://[::1]/z"]
        fetched = ask(urls, proxy=f"http://127.0.0.1:{proxy.port}", allowed_hosts=(), robots=False)
        assert failures(fetched) == [None, None, "private_address", "private_address"]
        assert sorted(proxy.paths()) == ["http://a.example/x", "http://b.example/y"]


def test_a_proxy_that_does_not_listen_gives_an_outcome() -> None:
    with nobody() as proxy:
        assert ask_one("http://a.example/x", proxy=proxy, robots=False).failure == "proxy_failed"


def test_a_proxys_answer_to_connect_is_not_the_answer() -> None:
    refusing = raw(head(403, [("X-Robots-Tag", "noai"), ("Content-Length", "0")]))
    with LoopbackServer(default=refusing) as proxy:
        fetched = ask_one("https://a.example/x", proxy=f"http://127.0.0.1:{proxy.port}", robots=False)
        assert (fetched.failure, fetched.headers) == ("proxy_failed", ())


def test_missing_names_and_failing_resolvers_give_different_outcomes() -> None:
    import socket

    def lookup(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN if host == "later.example" else socket.EAI_NONAME, "")

    urls = ["http://later.example/", "http://never.example/", "http://never.example/b"]
    assert failures(ask(urls, lookup=lookup)) == ["dns_temporary", "dns_failed", "dns_failed"]


def test_a_lookup_is_shared_and_cached() -> None:
    looked_up = []

    def lookup(host: str) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    with LoopbackServer({"/a": reply(b"x")}) as server:
        urls = [server.url("/a", "mirror.example")] * 20
        assert failures(ask(urls, lookup=lookup, allowed_hosts=("mirror.example",))) == [None] * 20
        assert looked_up == ["mirror.example"]


def test_a_hanging_lookup_delays_only_the_rows_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Leaping(monkeypatch)
    over = threading.Event()

    def lookup(host: str) -> list[str]:
        if host == "hangs.example":
            over.wait(PATIENCE_S)
        return ["127.0.0.1"]

    with LoopbackServer({"/a": reply(b"x")}) as server:
        chosen = options(allowed_hosts=("mirror.example",))
        client = Client(chosen, RateLimiter(chosen), lookup=lookup)
        done: list[Fetched] = []
        for host in ("hangs.example", "mirror.example"):
            client.submit(server.url("/a", host), done.append)
        wait_until(lambda: len(done) == 1)
        clock.leap(chosen.connect_timeout_s + 1, client)
        wait_until(lambda: len(done) == 2)
        over.set()
        client.close()
        assert [one.url for one in done] == [server.url("/a", "mirror.example"), server.url("/a", "hangs.example")]
        assert failures(done) == [None, "dns_timeout"]


def test_a_name_does_not_wait_for_a_thread_that_another_name_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of the first name is slow to take it from the queue when the second name arrives, as on a busy machine."""
    waits, both_looked_up, over = threading.Event(), threading.Event(), threading.Event()

    class SlowQueue(queue.Queue):
        def get(self, *args: object) -> object:
            waits.set()
            both_looked_up.wait(PATIENCE_S)
            return super().get()

    def lookup(host: str) -> list[str]:
        if host == "hangs.example":
            over.wait(PATIENCE_S)
        return ["127.0.0.1"]

    monkeypatch.setattr("vlmdata.web.dns.queue", SimpleNamespace(SimpleQueue=SlowQueue))
    answered: queue.Queue[str] = queue.Queue()
    resolver = Resolver(lambda host, answer: answered.put(host), lookup)
    resolver.ask("hangs.example")
    assert waits.wait(PATIENCE_S)
    resolver.ask("mirror.example")
    both_looked_up.set()
    try:
        assert answered.get(timeout=PATIENCE_S) == "mirror.example"
    finally:
        over.set()
        resolver.close()
