"""Whatever dies or fails beside the driver, a process, a thread or a call, the run goes on or ends with one line; it never waits."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.engine.dying import _first, spoiled_run
from tests.engine.site import Site, hashes, site
from tests.servers import LoopbackServer, Request, Wire, reply
from tests.web.ask import options
from vlmdata import run, thread
from vlmdata.cli import main
from vlmdata.engine import local, on_ray
from vlmdata.engine.ingest import fetch
from vlmdata.engine.worker import Worker
from vlmdata.web.client import Client
from vlmdata.web.pace import Pace


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deaths")
    with site(folder, 64, part_rows=8) as web:
        run(web.recipe, folder / "undisturbed", local=True, workers=2)
        web.expected = hashes(folder / "undisturbed")
        yield web


@contextlib.contextmanager
def at_a_request(web: Site, act: Callable[[], None]) -> Iterator[list[str]]:
    """Act before one picture, of a part in the middle, is answered for the first time. Gives what was asked for by then."""
    path = list(web.bodies)[len(web.bodies) // 2]
    answer, acted = web.server.routes[path], []

    def acting(request: Request, wire: Wire) -> bool:
        if not acted:
            acted.append(path)
            act()
        return answer(request, wire)

    web.server.routes[path] = acting
    try:
        yield acted
    finally:
        web.server.routes[path] = answer


def helpers(driver: int, word: str) -> list[int]:
    """Return the children of a process whose command line has a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == driver and word in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("words", [("forkserver",), ("resource_tracker",), ("forkserver", "resource_tracker")])
def test_a_helper_process_of_a_local_run_is_not_missed(web, tmp_path, words):
    """Nor is a worker, that is replaced by a new one although what it was forked from is gone."""
    driver: list[subprocess.Popen] = []

    def kill() -> None:
        victims = [victim for word in words for victim in helpers(driver[0].pid, word)]
        assert len(victims) == len(words)
        for victim in [*victims, *helpers(victims[0], "")]:
            os.kill(victim, signal.SIGKILL)

    command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(tmp_path / "out"), "--local"]
    with at_a_request(web, kill) as acted:
        driver.append(
            subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
        said = driver[0].communicate()[1]
    assert acted and driver[0].returncode == 0 and "Traceback" not in said
    assert hashes(tmp_path / "out") == web.expected


@contextlib.contextmanager
def pace_of_ray(monkeypatch: pytest.MonkeyPatch, web: Site, *, again: bool) -> Iterator[list[str]]:
    """Kill the actor that keeps the pace in mid-run; `again`: as Ray does not know why it died, it may begin it again."""
    ray = pytest.importorskip("ray")
    pools = []

    class Noted(on_ray.RayWorkers):
        def __init__(self, *args, **named):
            super().__init__(*args, **named)
            pools.append(self)

    monkeypatch.setattr(on_ray, "RayWorkers", Noted)
    with at_a_request(web, lambda: ray.kill(pools[0]._pace, no_restart=not again)) as acted:
        yield acted


def test_the_pace_on_ray_is_begun_again(web, tmp_path, monkeypatch):
    with pace_of_ray(monkeypatch, web, again=True) as acted:
        run(web.recipe, tmp_path / "out", workers=2)
    assert acted and hashes(tmp_path / "out") == web.expected


def test_a_pace_on_ray_that_is_lost_for_good_is_told_in_one_line(web, tmp_path, monkeypatch, capsys):
    with pace_of_ray(monkeypatch, web, again=False) as acted:
        assert main(["run", str(web.recipe), "--out", str(tmp_path / "out"), "--workers", "2"]) == 1
    said = capsys.readouterr().err
    last = "ConnectionError: the actor that keeps the pace of all workers is lost. Mend that, then the same command goes on from here"
    assert acted and said.splitlines()[-1] == f"vlmdata: {last}" and "Traceback" not in said
    run(web.recipe, tmp_path / "out", local=True)
    assert hashes(tmp_path / "out") == web.expected


def test_where_the_driver_cannot_keep_the_pace_of_a_worker_the_worker_is_replaced(web, tmp_path, monkeypatch):
    calls = []

    class Short(Pace):
        def exchange(self, *args):
            calls.append(args)
            if len(calls) == 5:
                raise MemoryError
            return super().exchange(*args)

    monkeypatch.setattr(local, "Pace", Short)
    run(web.recipe, tmp_path / "out", local=True, workers=2)
    assert len(calls) > 5 and hashes(tmp_path / "out") == web.expected


def _with_a_thread_that_fails(mark: Path) -> None:
    """Let the first part wait for a thread that finds no memory."""
    advance = Worker.advance

    def fail() -> None:
        raise MemoryError

    def waiting(self, *args):
        if _first(mark):
            threading.Thread(target=fail).start()
            threading.Event().wait()
        return advance(self, *args)

    Worker.advance = waiting


def _with_half_an_answer(mark: Path) -> None:
    """Let the process of the first part end in the midst of its answer."""
    send = Connection.send_bytes

    def half(self, data, *args):
        if _first(mark):
            os.write(self.fileno(), len(data).to_bytes(4, "big") + data[: len(data) // 2])
            os._exit(1)
        send(self, data, *args)

    Connection.send_bytes = half


@pytest.mark.parametrize("spoil", [_with_a_thread_that_fails, _with_half_an_answer])
def test_a_worker_that_nobody_would_hear_of_again_is_replaced(web, tmp_path, spoil):
    assert spoiled_run(web.recipe, tmp_path / "out", functools.partial(spoil, tmp_path / "mark"), tmp_path / "said") == 0
    assert (tmp_path / "mark").exists() and hashes(tmp_path / "out") == web.expected


def _without_a_way_to_answer() -> None:
    Worker.advance = lambda self, *args: threading.Lock()  # nothing that could travel


def _without_a_plan_to_read() -> None:
    def unreadable(self, *args):
        raise PermissionError(13, "Permission denied", "plan")

    Worker.__init__ = unreadable


@pytest.mark.parametrize(
    ("spoil", "says"), [(_without_a_way_to_answer, "cannot pickle"), (_without_a_plan_to_read, "vlmdata: PermissionError")]
)
def test_a_call_that_cannot_be_answered_ends_the_run(web, tmp_path, spoil, says):
    assert spoiled_run(web.recipe, tmp_path / "out", spoil, tmp_path / "said") == 1
    assert says in (tmp_path / "said").read_text().splitlines()[-1]


def test_a_row_in_the_clients_hand_as_it_breaks_is_not_waited_for(monkeypatch):
    def none(*args):
        raise MemoryError

    monkeypatch.setattr("vlmdata.web.client.Transfer", none)
    with LoopbackServer(default=reply(b"x")) as server:
        chosen = options(robots=False)
        with pytest.raises(RuntimeError, match="stopped early") as told:
            list(fetch({0: server.url("/a")}, Client(chosen, Pace(chosen))))
    assert isinstance(told.value.__cause__, MemoryError)


def test_what_the_machine_lacks_is_told_as_that_through_the_client(monkeypatch):
    def none(*args):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("vlmdata.web.client.Transfer", none)
    with LoopbackServer(default=reply(b"x")) as server, pytest.raises(OSError, match="Too many open files"):
        chosen = options(robots=False)
        list(fetch({0: server.url("/a")}, Client(chosen, Pace(chosen))))


@pytest.mark.parametrize("room", [True, False])
def test_a_thread_that_does_not_begin_is_not_waited_for(monkeypatch, room):
    """The system begins it and it ends before its first call, as where there is no memory for that."""
    monkeypatch.setattr(threading, "_start_new_thread", lambda *args: 0)
    monkeypatch.setattr(thread, "has_room", lambda: room)
    monkeypatch.setattr(thread, "BEGIN_S", 1)
    with pytest.raises(MemoryError, match="could not begin"):
        thread.Thread(print).start()
