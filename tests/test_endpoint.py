"""A store whose server does not answer is reported in one line, before the store's library tries again and again."""

import queue
import socket

import fsspec
import pytest

import vlmdata.endpoint
from tests.servers import nobody
from vlmdata.cli import main
from vlmdata.endpoint import check_answers
from vlmdata.engine.store.open_store import open_store
from vlmdata.errors import Unreachable

pytestmark = pytest.mark.whole

RECIPE = "source: {type: url_list, path: a.csv}\nsteps: [{download: {contact: a@b.org}}, resize]\n"
FIX = "Check AWS_ENDPOINT_URL and the network"


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """Set keys and no proxy, and make s3fs read the environment again."""
    pytest.importorskip("s3fs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    forget_connections()
    yield
    forget_connections()


def forget_connections() -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def tries(address: str) -> None:
    check_answers(fsspec.url_to_fs(address)[0], address)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("run r.yaml --out s3://b/x --local", 2),
        ("check r.yaml --out s3://b/x --deep", 2),
        ("check r.yaml --set source.path=s3://b/x", 2),
        ("show s3://b/x", 1),
        ("export s3://b/x new", 1),
        ("index s3://b/x", 1),
        ("diff s3://b/x s3://b/y", 1),
        ("why s3://b/x a", 1),
        ("forget s3://b/x --key 0123456789abcdef01234567", 1),
        ("retry s3://b/x", 1),
        ("check s3://b/x", 1),
    ],
)
def test_a_store_that_does_not_answer_gives_one_line(tmp_path, monkeypatch, capsys, line, status):
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "a.csv").write_text("url,caption\nhttps://e.example/a.jpg,a cat\n")
    with nobody() as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
        assert main(line.split()) == status
        [message] = capsys.readouterr().err.splitlines()
        place = silent.removeprefix("http://")
        assert f"s3://b/x: cannot reach this store: nothing answers at {place} (Connection refused). {FIX}" in message


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://no-such-host.invalid:9000", "the host no-such-host.invalid"),
        ("https://no-such-host.invalid", "the host no-such-host.invalid"),
        (f"http://{'a' * 64}.example", "Invalid endpoint"),
        ("nonsense", "Invalid endpoint: nonsense"),
    ],
)
def test_an_endpoint_that_is_no_server_is_named(monkeypatch, endpoint, why):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(Unreachable, match=rf"s3://b/x: cannot reach this store: .*{why}.*{FIX}"):
        tries("s3://b/x")


def test_a_host_that_drops_all_packets_is_named(monkeypatch):
    monkeypatch.setattr(vlmdata.endpoint, "ANSWER_S", 0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # the kernel ignores connections to a full queue
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(Unreachable, match=f"nothing answers at 127.0.0.1:{port} within 0.05 s"):
            tries("s3://b/x")
        for one in waiting:
            one.close()


def test_a_name_server_that_is_silent_does_not_delay(monkeypatch):
    never: queue.SimpleQueue = queue.SimpleQueue()
    monkeypatch.setattr(vlmdata.endpoint, "NAME_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: never.get())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://slow.invalid:9000")
    with pytest.raises(Unreachable, match=r"no name server answers for the host slow\.invalid within 0\.05 s"):
        tries("s3://b/x")
    never.put([])


def test_a_name_server_that_fails_for_a_moment_is_asked_again(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        again = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        said = [again, [(socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname())]]

        def answer(*args, **options):
            one = said.pop(0)
            if isinstance(one, OSError):
                raise one
            return one

        monkeypatch.setattr(socket, "getaddrinfo", answer)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://new.invalid:9000")
        tries("s3://b/x")
        said[:] = [again]
        monkeypatch.setattr(vlmdata.endpoint, "AGAIN_S", 0)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other.invalid:9000")
        forget_connections()
        with pytest.raises(Unreachable, match=r"the host other\.invalid has no address \(Temporary failure"):
            tries("s3://b/x")


def test_a_server_that_is_just_starting_is_tried_again(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # refuses connections until it listens
        monkeypatch.setattr(vlmdata.endpoint.time, "sleep", lambda seconds: server.listen())
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        tries("s3://b/x")


def test_one_of_several_addresses_is_enough(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server, nobody("127.0.0.2") as silent:
        ports = [(silent.rpartition(":")[2], "127.0.0.2"), (server.getsockname()[1], "127.0.0.1")]
        places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, int(port))) for port, host in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: places)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two.invalid:9000")
        tries("s3://b/x")


def test_nothing_is_asked_if_a_proxy_is_set_for_the_endpoint(monkeypatch):
    with nobody() as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        tries("s3://b/x")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(Unreachable):
            tries("s3://b/x")


def test_a_worker_and_other_stores_are_not_checked(monkeypatch):
    with nobody() as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
        open_store("s3://b/x", probe=False, is_worker=True)
        open_store("memory://b", probe=False)
        with pytest.raises(Unreachable, match=r"http://127.*Check the address of the store and the network"):
            tries(f"{silent}/a.csv")
