"""Many rows of one host share an HTTP/2 connection, and a refused row does not end the others."""

from tests.web.ask import ask, failures
from tests.web.h2_server import H2Server


def test_rows_share_one_connection() -> None:
    with H2Server({f"/{n}": (200, [("content-type", "image/jpeg")], b"%d" % n) for n in range(50)}) as server:
        fetched = ask([server.url(f"/{n}") for n in range(50)], ca_file=str(server.certificate.file), host_connections=8)
        assert [one.body for one in fetched] == [b"%d" % n for n in range(50)]
        assert {one.content_type for one in fetched} == {"image/jpeg"}
        assert server.connections == 1  # the one that robots.txt opened


def test_limits_and_refusals_apply_to_each_stream() -> None:
    answers = {
        "/noai": (200, [("x-robots-tag", "noai")], b"x" * 1000),
        "/large": (200, [], b"x" * 1001),
        "/exact": (200, [], b"x" * 1000),
        "/promised": (200, [("content-length", "900000")], b"x" * 1000),
        "/to": (302, [("location", "/exact")], b""),
        "/busy": (503, [], b""),
        "/many": (200, [(f"x-{n}", "x" * 1000) for n in range(20)], b"x"),
    }
    with H2Server(answers) as server:
        urls = [server.url(path) for path in answers]
        fetched = ask(urls, ca_file=str(server.certificate.file), max_bytes=1000, max_header_bytes=10_000, host_connections=1)
        assert failures(fetched) == ["noai", "too_large", None, "too_large", None, "http_503", "headers_too_large"]
