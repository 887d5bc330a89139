"""Certificates are checked, and one connection serves many rows."""

import pytest

from bench.inputs.certificate import Certificate
from tests.servers import LoopbackServer, reply
from tests.web.ask import ask, ask_one


def test_an_untrusted_certificate_is_refused() -> None:
    with LoopbackServer({"/a": reply(b"x")}, tls=Certificate("127.0.0.1")) as server:
        assert ask_one(server.url("/a")).failure == "tls_failed"
        assert server.requests == []


def test_a_trusted_certificate_is_accepted() -> None:
    certificate = Certificate("127.0.0.1")
    with LoopbackServer({f"/{n}": reply(b"%d" % n) for n in range(20)}, tls=certificate) as server:
        fetched = ask([server.url(f"/{n}") for n in range(20)], ca_file=str(certificate.file), host_connections=1)
        assert [one.body for one in fetched] == [b"%d" % n for n in range(20)]
        assert server.connections == 1


@pytest.mark.parametrize("certificate", [Certificate("other.example"), Certificate("127.0.0.1", expired=True)])
def test_a_certificate_for_another_name_or_time_is_refused(certificate: Certificate) -> None:
    with LoopbackServer({"/a": reply(b"x")}, tls=certificate) as server:
        assert ask_one(server.url("/a"), ca_file=str(certificate.file), robots=False).failure == "tls_failed"


def test_a_port_without_tls_gives_an_outcome() -> None:
    with LoopbackServer({"/a": reply(b"x")}) as server:
        assert ask_one(f"https://127.0.0.1:{server.port}/a", robots=False).failure == "tls_failed"
