"""A process, a thread or a call beside the driver dies or fails: the run continues or reports why not, and never hangs."""

import contextlib
import functools
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.engine.dying import in_process, is_first, spoiled_run
from tests.engine.site import Site, hashes, site
from tests.engine.test_killed import is_at_work
from tests.servers import LoopbackServer, Request, Wire, reply
from tests.web.ask import options
from vlmdata import run
from vlmdata.cli import main
from vlmdata.engine.drive import on_ray, processes
from vlmdata.engine.drive.driver import WorkFailed
from vlmdata.engine.work.ingest import fetch
from vlmdata.engine.work.worker import Worker
from vlmdata.process import thread
from vlmdata.web.client import Client
from vlmdata.web.rate_limiter import RateLimiter

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deaths")
    with site(folder, 64, part_rows=8) as web:
        run(web.recipe, folder / "undisturbed", local=True, workers=2)
        web.expected = hashes(folder / "undisturbed")
        yield web


@contextlib.contextmanager
def at_a_request(web: Site, act: Callable[[], None], path: str) -> Iterator[list[str]]:
    """Call `act` before a path is answered for the first time. Yield a list that holds the path afterwards."""
    answer, begun, acted = web.server.routes.get(path, web.server.default), [], []

    def acting(request: Request, wire: Wire) -> bool:
        if not begun:
            begun.append(path)
            act()
            acted.append(path)
        return answer(request, wire)

    web.server.routes[path] = acting
    try:
        yield acted
    finally:
        web.server.routes[path] = answer


def helpers(driver: int, word: str) -> list[int]:
    """Return the child processes of a process whose command line contains a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == driver and word in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("words", [("forkserver",), ("resource_tracker",), ("forkserver", "resource_tracker")])
def test_a_local_run_continues_after_its_helper_processes_die(web, tmp_path, words):
    """A killed worker is also replaced, even after the process that it was forked from has died."""
    drivers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def kill() -> None:
        driver = drivers.get()
        victims = [victim for word in words for victim in helpers(driver, word)]
        assert len(victims) == len(words)
        for victim in [*victims, *helpers(victims[0], "")]:
            os.kill(victim, signal.SIGKILL)

    command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(tmp_path / "out"), "--local"]
    with at_a_request(web, kill, list(web.bodies)[len(web.bodies) // 2]) as acted:
        command += ["--workers", "2"]
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        drivers.put(driver.pid)
        output = driver.communicate()[1]
    assert acted and driver.returncode == 0 and "Traceback" not in output
    assert hashes(tmp_path / "out") == web.expected


@contextlib.contextmanager
def rate_limiter_of_ray(monkeypatch: pytest.MonkeyPatch, web: Site, *, for_good: bool) -> Iterator[list[str]]:
    """Kill the rate limiter's actor while all rows wait for it. They wait until the site's robots.txt is read."""
    ray = pytest.importorskip("ray")
    pools = []

    class Noted(on_ray.RayWorkers):
        def __init__(self, *args, **named):
            super().__init__(*args, **named)
            pools.append(self)

    def kill() -> None:
        limiter = pools[0].rate_limiter
        pid = ray.get(limiter.__ray_call__.remote(lambda self: os.getpid()))
        if for_good:
            ray.kill(limiter)
        else:
            os.kill(pid, signal.SIGKILL)
        while is_at_work(pid):
            time.sleep(0.01)

    monkeypatch.setattr(on_ray, "RayWorkers", Noted)
    with at_a_request(web, kill, "/robots.txt") as acted:
        yield acted


def test_the_rate_limiter_on_ray_is_restarted(web, tmp_path, monkeypatch):
    with rate_limiter_of_ray(monkeypatch, web, for_good=False) as acted:
        run(web.recipe, tmp_path / "out", workers=2)
    assert acted and hashes(tmp_path / "out") == web.expected


def test_a_rate_limiter_that_ray_cannot_restart_ends_the_run_with_one_line(web, tmp_path, monkeypatch, capsys):
    with rate_limiter_of_ray(monkeypatch, web, for_good=True) as acted:
        assert main(["run", str(web.recipe), "--out", str(tmp_path / "out"), "--workers", "2"]) == 1
    output = capsys.readouterr().err
    last = "vlmdata: ConnectionError: the workers' shared rate limiter died. "
    assert acted and f"{last}Fix this and run the same command again; it resumes." in output.splitlines()
    assert "Traceback" not in output
    run(web.recipe, tmp_path / "out", local=True)
    assert hashes(tmp_path / "out") == web.expected


def test_a_worker_that_the_rate_limiter_cannot_answer_is_replaced(web, tmp_path, monkeypatch):
    calls = itertools.count()

    class Short(RateLimiter):
        def exchange(self, *args):
            if next(calls) == 0:
                raise MemoryError
            return super().exchange(*args)

    monkeypatch.setattr(processes, "RateLimiter", Short)
    run(web.recipe, tmp_path / "out", local=True, workers=2)
    assert next(calls) > 1 and hashes(tmp_path / "out") == web.expected


def _with_a_thread_that_fails(mark: Path) -> None:
    """Make the first partition wait for a thread that raises MemoryError."""
    advance = Worker.advance

    def fail() -> None:
        raise MemoryError

    def waiting(self, *args):
        if is_first(mark):
            threading.Thread(target=fail).start()
            threading.Event().wait()
        return advance(self, *args)

    Worker.advance = waiting


def _with_half_an_answer(mark: Path) -> None:
    """End the process of the first partition in the middle of its answer."""
    send = Connection.send_bytes

    def half(self, data, *args):
        if is_first(mark):
            os.write(self.fileno(), len(data).to_bytes(4, "big") + data[: len(data) // 2])
            os._exit(1)
        send(self, data, *args)

    Connection.send_bytes = half


@pytest.mark.parametrize("spoil", [_with_a_thread_that_fails, _with_half_an_answer])
def test_a_worker_that_never_answers_again_is_replaced(web, tmp_path, spoil):
    assert spoiled_run(web.recipe, tmp_path / "out", functools.partial(spoil, tmp_path / "mark"), tmp_path / "output") == 0
    assert (tmp_path / "mark").exists() and hashes(tmp_path / "out") == web.expected


def _without_a_way_to_answer() -> None:
    Worker.advance = lambda self, *args: threading.Lock()  # a lock cannot be pickled


def _without_a_plan_to_read() -> None:
    def unreadable(self, *args):
        raise PermissionError(13, "Permission denied", "plan")

    Worker.__init__ = unreadable


@pytest.mark.parametrize(
    ("spoil", "message"), [(_without_a_way_to_answer, "cannot pickle"), (_without_a_plan_to_read, "vlmdata: PermissionError")]
)
def test_a_call_whose_answer_cannot_be_sent_ends_the_run(web, tmp_path, spoil, message):
    assert spoiled_run(web.recipe, tmp_path / "out", spoil, tmp_path / "output") == 1
    assert message in (tmp_path / "output").read_text().strip().splitlines()[-1]


def test_a_row_that_was_in_progress_when_the_client_broke_does_not_hang_the_run(monkeypatch):
    def none(*args):
        raise MemoryError

    monkeypatch.setattr("vlmdata.web.client.Transfer", none)
    monkeypatch.setattr("vlmdata.engine.work.ingest.LOOK_S", 0.01)
    with LoopbackServer(default=reply(b"x")) as server:
        chosen = options(robots=False)
        with pytest.raises(RuntimeError, match="stopped early") as caught:
            list(fetch({0: server.url("/a")}, Client(chosen, RateLimiter(chosen))))
    assert isinstance(caught.value.__cause__, MemoryError)


def test_the_client_passes_on_an_error_of_the_operating_system(monkeypatch):
    def none(*args):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("vlmdata.web.client.Transfer", none)
    monkeypatch.setattr("vlmdata.engine.work.ingest.LOOK_S", 0.01)
    with LoopbackServer(default=reply(b"x")) as server, pytest.raises(OSError, match="Too many open files"):
        chosen = options(robots=False)
        list(fetch({0: server.url("/a")}, Client(chosen, RateLimiter(chosen))))


def _start_a_thread_that_dies(room: bool) -> None:
    own, get_ident = threading.get_ident(), threading.get_ident

    def none_for_others() -> int:  # the first function that the library calls in a new thread
        if get_ident() != own:
            raise MemoryError
        return own

    threading.get_ident = none_for_others
    thread.has_room = lambda: room
    thread.BEGIN_S, thread.LOOK_S = 0.02, 0.01
    try:
        thread.Thread(print).start()
    except MemoryError:
        os._exit(7)


@pytest.mark.parametrize("room", [True, False])
def test_a_thread_that_dies_before_its_first_call_raises_an_error(room):
    assert in_process(_start_a_thread_that_dies, room) == 7


def test_a_worker_process_that_does_not_start_is_retried_then_reported(web, tmp_path, monkeypatch):
    start, calls, fails = processes.CONTEXT.Process.start, itertools.count(), 2

    def failing(self):
        if next(calls) < fails:
            raise EOFError
        start(self)

    monkeypatch.setattr(processes.CONTEXT.Process, "start", failing)
    monkeypatch.setattr(processes, "PAUSES_S", (0.0, 0.0, 0.0))
    run(web.recipe, tmp_path / "out", local=True, workers=2)
    assert hashes(tmp_path / "out") == web.expected
    calls, fails = itertools.count(), 3
    with pytest.raises(WorkFailed, match="cannot start a process for a worker"):
        run(web.recipe, tmp_path / "other", local=True, workers=2)
