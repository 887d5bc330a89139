"""Every answer of a server becomes an outcome."""

import gzip
import zlib

import pytest

from tests.servers import LoopbackServer, Request, Wire, drip, endless, hang, head, nobody, raw, redirect, reply, reset
from tests.web.ask import ask, ask_one, failures
from vlmdata.web.outcomes import is_passing

JPEG = b"\xff\xd8" + b"picture" * 10_000


def test_a_body_is_returned_unchanged() -> None:
    with LoopbackServer({"/a.jpg": reply(JPEG, headers={"Content-Type": "image/jpeg"})}) as server:
        fetched = ask_one(server.url("/a.jpg#part"))
        assert (fetched.body, fetched.failure, fetched.status) == (JPEG, None, 200)
        assert (fetched.url, fetched.final_url) == (server.url("/a.jpg#part"), server.url("/a.jpg"))
        assert fetched.content_type == "image/jpeg"


def test_the_user_agent_is_honest() -> None:
    with LoopbackServer({"/a": reply(b"x")}) as server:
        ask_one(server.url("/a"), agent="shapelab", contact="crawl@shapelab.example")
        agents = {request.headers["user-agent"] for request in server.requests}
        assert len(agents) == 1 and agents.pop().startswith("shapelab/")
        assert server.requests[-1].headers["user-agent"].endswith(" (+crawl@shapelab.example)")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451, 500, 503, 999])
def test_every_other_answer_is_named_by_its_status(status: int) -> None:
    with LoopbackServer({"/a": reply(b"an error page", status)}) as server:
        fetched = ask_one(server.url("/a"))
        assert (fetched.body, fetched.failure, fetched.status) == (None, f"http_{status}", status)


@pytest.mark.parametrize(
    ("failure", "passing"),
    [
        ("http_404", False),
        ("http_410", False),
        ("http_403", False),
        ("http_429", True),
        ("http_503", True),
        ("http_500", True),
        ("http_501", False),
        ("timeout", True),
        ("robots", False),
        ("host_busy", True),
        ("http_999", False),
    ],
)
def test_some_failures_are_temporary(failure: str, passing: bool) -> None:
    assert is_passing(failure) is passing


def test_an_unknown_failure_is_an_error() -> None:
    with pytest.raises(AssertionError, match="unknown outcome"):
        is_passing("timeot")


def test_error_pages_keep_their_connection_and_are_read_briefly() -> None:
    with LoopbackServer({"/big": endless(before=head(404, [("Content-Type", "text/html")]))}) as server:
        fetched = ask([server.url("/missing"), server.url("/missing")], host_connections=1)
        assert failures(fetched) == ["http_404", "http_404"]
        assert server.connections == 1  # robots.txt, itself 404, included
        assert ask_one(server.url("/big")).failure == "http_404"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies_are_decompressed(encoding: str) -> None:
    body = gzip.compress(JPEG) if encoding == "gzip" else zlib.compress(JPEG)
    with LoopbackServer({"/a": reply(body, headers={"Content-Encoding": encoding})}) as server:
        assert ask_one(server.url("/a")).body == JPEG


def test_the_limit_holds_after_decompression() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    with LoopbackServer({"/a": reply(bomb, headers={"Content-Encoding": "gzip"})}) as server:
        assert ask_one(server.url("/a"), max_bytes=1_000_000).failure == "too_large"


def test_a_nested_decompression_bomb_is_stopped() -> None:
    bomb = gzip.compress(gzip.compress(bytes(300_000_000), 1))
    with LoopbackServer({"/a": reply(bomb, headers={"Content-Encoding": "gzip, gzip"})}) as server:
        assert ask_one(server.url("/a"), max_bytes=1_000_000).failure == "too_large"


@pytest.mark.parametrize(("size", "failure"), [(1000, None), (1001, "too_large")])
def test_the_limit_on_bytes_is_exact(size: int, failure: str | None) -> None:
    chunked = head(200, [("Transfer-Encoding", "chunked")]) + b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    routes = {"/promised": reply(b"x" * size), "/chunked": raw(chunked), "/closed": raw(head(200) + b"x" * size)}
    with LoopbackServer(routes) as server:
        fetched = ask([server.url(path) for path in routes], max_bytes=1000)
        assert failures(fetched) == [failure] * 3


def test_a_body_with_a_content_length_over_the_limit_is_not_read() -> None:
    with LoopbackServer({"/a": endless(before=head(200, [("Content-Length", "900000000000")]))}) as server:
        assert ask_one(server.url("/a")).failure == "too_large"


BAD_ANSWERS = {
    "endless": (endless(), "too_large"),
    "half": (raw(head(200, [("Content-Length", "100")]) + b"x" * 50), "truncated_body"),
    "half_chunked": (raw(head(200, [("Transfer-Encoding", "chunked")]) + b"64\r\nhalf"), "truncated_body"),
    "bad_chunk": (raw(head(200, [("Transfer-Encoding", "chunked")]) + b"zz\r\nhalf"), "reset"),
    "no_body": (reply(b""), "empty_body"),
    "no_content": (raw(head(204)), "http_204"),
    "partial": (raw(head(206, [("Content-Length", "4")]) + b"half"), "http_206"),
    "not_modified": (raw(head(304)), "http_304"),
    "not_gzip": (reply(JPEG, headers={"Content-Encoding": "gzip"}), "bad_encoding"),
    "cut_gzip": (
        raw(head(200, [("Content-Encoding", "gzip"), ("Content-Length", "20")]) + gzip.compress(JPEG)[:12]),
        "truncated_body",
    ),
    "many_encodings": (reply(JPEG, headers={"Content-Encoding": ", ".join(["gzip"] * 50)}), "bad_encoding"),
    "nothing": (raw(b""), "reset"),
    "reset": (reset, "reset"),
    "not_http": (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "bad_response"),
    "http_0_9": (raw(JPEG), "bad_response"),
    "no_status": (raw(b"HTTP/1.1 OK\r\n\r\nbody"), "bad_response"),
    "two_lengths": (raw(head(200, [("Content-Length", "3"), ("Content-Length", "5")]) + b"12345"), "bad_response"),
    "odd_length": (raw(head(200, [("Content-Length", "-5")]) + b"12345"), "bad_response"),
    "huge_header": (raw(head(200, [("X-Long", "x" * 70_000)]) + b"x"), "headers_too_large"),
    "many_headers": (raw(head(200, [("X-Many", "x" * 90)] * 900) + b"x"), "headers_too_large"),
    "endless_headers": (endless(b"X-More: and more\r\n" * 100, before=b"HTTP/1.1 200 OK\r\n"), "headers_too_large"),
    "endless_header": (endless(before=b"HTTP/1.1 200 OK\r\nX-Long: "), "headers_too_large"),
    "endless_continue": (endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, before=b""), "headers_too_large"),
    "endless_status": (endless(before=b"HTTP/1.1 200 "), "headers_too_large"),
}


def test_every_invalid_answer_becomes_an_outcome() -> None:
    with LoopbackServer({f"/{name}": route for name, (route, _) in BAD_ANSWERS.items()}) as server:
        fetched = ask([server.url(f"/{name}") for name in BAD_ANSWERS], max_bytes=1_000_000)
        assert {name: one.failure for name, one in zip(BAD_ANSWERS, fetched, strict=True)} == {
            name: failure for name, (_, failure) in BAD_ANSWERS.items()
        }


def test_unusual_valid_answers_are_read() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Robots-Tag: noai\r\nLink: </a>\r\n\r\n"
    routes = {
        "/early": raw(early + head(200, [("Content-Length", "4")]) + b"body"),
        "/longer": raw(head(200, [("Content-Length", "4")]) + b"body and more that was not promised"),
        "/bare_newlines": raw(b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbody"),
        "/until_close": raw(b"HTTP/1.0 200 OK\r\n\r\nbody"),
        "/trailers": raw(head(200, [("Transfer-Encoding", "chunked")]) + b"4\r\nbody\r\n0\r\nX-Robots-Tag: noai\r\n\r\n"),
        "/unauthoritative": reply(b"body", 203),
    }
    with LoopbackServer(routes) as server:
        fetched = ask([server.url(path) for path in routes])
        assert {path: (one.body, one.failure) for path, one in zip(routes, fetched, strict=True)} == dict.fromkeys(
            routes, (b"body", None)
        )


def test_no_host_delays_a_row_longer_than_timeout_s() -> None:
    def half_a_header(request: Request, wire: Wire) -> bool:
        wire.send(b"HTTP/1.1 200 OK\r\n")
        return hang(request, wire)

    slow = {"/drip": drip(b"x" * 1000), "/hang": hang, "/slow_headers": half_a_header}
    with LoopbackServer(slow) as server:
        fetched = ask([server.url(path) for path in slow], timeout_s=0.5, robots=False)
        assert failures(fetched) == ["timeout"] * 3


def test_redirects_are_followed_and_counted() -> None:
    routes = {f"/{n}": redirect(f"/{n + 1}", status) for n, status in enumerate([301, 302, 303, 307, 308])}
    with LoopbackServer({**routes, "/5": reply(b"there"), "/loop": redirect("/loop")}) as server:
        good, loop, short = (*ask([server.url("/0"), server.url("/loop")]), ask_one(server.url("/0"), max_redirects=4))
        assert (good.body, good.final_url) == (b"there", server.url("/5"))
        assert (loop.failure, short.failure) == ("too_many_redirects", "too_many_redirects")
        assert server.paths().count("/loop") == 11


def test_unescaped_bytes_of_a_redirect_are_requested_unchanged() -> None:
    routes = {"/utf8": redirect("/caf\xc3\xa9.jpg"), "/latin1": redirect("/caf\xe9 1.jpg")}
    routes |= {"/caf%C3%A9.jpg": reply(b"utf-8"), "/caf%E9%201.jpg": reply(b"latin-1")}
    with LoopbackServer(routes) as server:
        assert [one.body for one in ask([server.url("/utf8"), server.url("/latin1")])] == [b"utf-8", b"latin-1"]


def test_a_robots_txt_behind_such_a_redirect_is_obeyed() -> None:
    rules = reply(b"User-agent: *\nDisallow: /closed")
    routes = {"/closed.jpg": reply(b"a"), "/open.jpg": reply(b"b")}
    for place in ("/r\xc3\xa9gles.txt", "r\xe9gles 1.txt", "\\r\xe9gles.txt"):
        target = {"/r%C3%A9gles.txt": rules, "/r%E9gles%201.txt": rules, "/r%E9gles.txt": rules}
        with LoopbackServer({"/robots.txt": redirect(place), **target, **routes}) as server:
            fetched = ask([server.url("/closed.jpg"), server.url("/open.jpg")], robots=True)
            assert [(one.failure, one.body) for one in fetched] == [("robots", None), (None, b"b")]


def test_the_guard_holds_wherever_such_a_redirect_leads() -> None:
    with LoopbackServer({}) as inner:
        place = f"\\\\127.0.0.2:{inner.port}\\\xe9"
        with LoopbackServer({"/a": redirect(place)}) as server:
            assert ask_one(server.url("/a"), robots=False, allowed_hosts=("127.0.0.1",)).failure == "private_address"
        assert inner.requests == []


def test_a_redirect_to_another_scheme_is_not_followed() -> None:
    places = [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1/",
        "data:image/png;base64,AA",
        "http://[",
        "http://u:p@127.0.0.1/",
    ]
    with LoopbackServer({f"/{n}": redirect(place) for n, place in enumerate(places)}) as server:
        fetched = ask([server.url(f"/{n}") for n in range(len(places))])
        assert failures(fetched) == ["bad_redirect"] * len(places)


def test_a_redirect_without_a_location_is_treated_as_an_answer() -> None:
    with LoopbackServer({"/a": reply(status=302), "/b": reply(status=300, headers={"Location": "/a"})}) as server:
        assert failures(ask([server.url("/a"), server.url("/b")])) == ["http_302", "http_300"]


def test_invalid_addresses_are_outcomes() -> None:
    assert failures(ask(["", "x", "ftp://a.example/", "http://a b/", "http://\ud800/"])) == ["bad_url"] * 5


def test_a_port_without_a_listener_gives_an_outcome() -> None:
    with nobody() as site:
        assert ask_one(f"{site}/a", robots=False).failure == "connect_failed"
        assert ask_one(f"{site}/a").failure == "connect_failed"  # robots.txt fails first
