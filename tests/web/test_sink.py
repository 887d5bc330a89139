"""A body can be written to a file. Then it is not in memory, and does not count as in flight."""

import tempfile
import threading

from tests.servers import LoopbackServer, in_turn, raw, reply
from tests.web.ask import PATIENCE_S, options
from vlmdata.web.client import Client
from vlmdata.web.fetch import Fetched
from vlmdata.web.rate_limiter import RateLimiter

BODY = b"a video" * 300_000


def fetch(server: LoopbackServer, path: str, **changed: object) -> tuple[Fetched, bytes, int]:
    """Return the outcome, the bytes in the file, and the bytes that count as in flight afterwards."""
    chosen = options(**changed)
    client = Client(chosen, RateLimiter(chosen))
    found: list[Fetched] = []
    ended = threading.Event()

    def done(fetched: Fetched) -> None:
        found.append(fetched)
        ended.set()

    with tempfile.TemporaryFile() as file:
        client.submit(server.url(path), done, file)
        assert ended.wait(PATIENCE_S)
        client.close()
        file.seek(0)
        return found[0], file.read(), client.budget.used


def test_a_body_larger_than_the_memory_budget_is_written_to_the_file() -> None:
    with LoopbackServer({"/a": reply(BODY)}) as server:
        fetched, written, held = fetch(server, "/a", bytes_in_flight=1000)
    assert (fetched.failure, fetched.body, written == BODY, held) == (None, b"", True, 0)


def test_a_second_attempt_replaces_the_bytes_of_the_first() -> None:
    cut = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"wrong" * 9999)
    with LoopbackServer({"/a": in_turn(cut, reply(BODY))}) as server:
        fetched, written, _ = fetch(server, "/a", retries=1)
    assert (fetched.failure, written == BODY) == (None, True)


def test_the_limit_on_bytes_applies_to_a_file_and_an_error_page_is_not_written() -> None:
    with LoopbackServer({"/a": reply(BODY), "/b": reply(b"an error page", 404)}) as server:
        assert fetch(server, "/a", max_bytes=1000)[0].failure == "too_large"
        fetched, written, _ = fetch(server, "/b")
    assert (fetched.failure, written) == ("http_404", b"")


def test_robots_txt_is_obeyed_and_not_written_to_the_file() -> None:
    with LoopbackServer({"/robots.txt": reply(b"User-agent: *\nDisallow: /a"), "/a": reply(BODY)}) as server:
        fetched, written, _ = fetch(server, "/a")
    assert (fetched.failure, written) == ("robots", b"")
