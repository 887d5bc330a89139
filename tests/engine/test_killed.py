"""After any process is killed at any moment, the same command loses nothing, repeats nothing and writes the same bytes."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.site import Site, hashes, site
from tests.servers import Request, Wire
from vlmdata import run

pytestmark = pytest.mark.whole


def start(web: Site, out: Path, workers: int = 2) -> subprocess.Popen:
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(out), "--local"]
    return subprocess.Popen([*command, "--workers", str(workers)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def workers_of(driver: int) -> list[int]:
    """Return the worker processes of a run, which are the children of its forkserver."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            parent = int(line[1])
            grandparent = int((Path("/proc") / str(parent) / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if grandparent == driver:
            found.append(int(folder.name))
    return found


def is_at_work(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def commits(out: Path) -> int:
    return len(list((out / "work" / "log").glob("*/*.json")))


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with site(folder, 320, part_rows=10) as web:
        run(web.recipe, folder / "undisturbed", local=True, workers=2)
        web.expected = hashes(folder / "undisturbed")
        yield web


@contextlib.contextmanager
def unfinished(web: Site) -> Iterator[threading.Event]:
    """Keep every run from ending until the event is set or the block ends, because one picture is not answered until then."""
    path = next(iter(web.bodies))
    answer, may_end = web.server.routes[path], threading.Event()

    def later(request: Request, wire: Wire) -> bool:
        may_end.wait()
        return answer(request, wire)

    web.server.routes[path] = later
    try:
        yield may_end
    finally:
        may_end.set()
        web.server.routes[path] = answer


@pytest.mark.parametrize("parts", [0, 11, 32])
def test_killing_the_driver_changes_no_byte(web, tmp_path, parts):
    driver = start(web, tmp_path / "out")
    while driver.poll() is None and commits(tmp_path / "out") < parts:
        time.sleep(0.005)
    driver.kill()
    driver.wait()
    assert start(web, tmp_path / "out").wait() == 0
    assert hashes(tmp_path / "out") == web.expected


def test_killing_workers_repeatedly_changes_no_byte(web, tmp_path):
    dice = random.Random(0)
    killed = 0
    with unfinished(web) as may_end:
        driver = start(web, tmp_path / "out")
        while driver.poll() is None and killed < 6:
            time.sleep(0.15)
            victims = workers_of(driver.pid)
            if victims and commits(tmp_path / "out"):
                os.kill(dice.choice(victims), signal.SIGKILL)
                killed += 1
        may_end.set()
        driver.wait()
    assert killed and driver.returncode == 0
    assert hashes(tmp_path / "out") == web.expected


def test_two_concurrent_drivers_on_one_folder_write_the_same_dataset(web, tmp_path):
    drivers = [start(web, tmp_path / "out", workers=1) for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert hashes(tmp_path / "out") == web.expected


def test_workers_end_when_their_driver_is_killed(web, tmp_path):
    with unfinished(web):
        driver = start(web, tmp_path / "out")
        while not commits(tmp_path / "out"):
            time.sleep(0.01)
        workers = workers_of(driver.pid)
        driver.kill()
        driver.wait()
    assert workers
    while any(map(is_at_work, workers)):  # a surviving worker makes the test run into its time limit
        time.sleep(0.05)


# maximum file size in bytes: the first is too small for the plan, the second for a tar
@pytest.mark.parametrize("most", [8_000, 40_000])
def test_a_full_disk_is_reported_in_one_line_and_a_later_run_resumes(web, tmp_path, most):
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(tmp_path / "out"), "--local"]

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    # Python 3.11 would keep a half-written module (cpython#126606)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*command, "--workers", "1"]
    failed = subprocess.run(command, capture_output=True, text=True, preexec_fn=little_room, env=environment)
    last = failed.stderr.splitlines()[-1]
    assert failed.returncode == 1 and "File too large" in last and "it resumes" in last
    assert "Traceback" not in failed.stderr
    assert start(web, tmp_path / "out").wait() == 0
    assert hashes(tmp_path / "out") == web.expected
