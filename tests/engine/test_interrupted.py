"""Ctrl-C once or twice, or SIGTERM, at any time: the command prints one line, exits with the shells' status and leaves no
process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.site import Site, hashes, site
from tests.engine.test_killed import commits, is_at_work, unfinished
from vlmdata import run
from vlmdata.engine.drive import on_ray
from vlmdata.engine.drive.driver import WorkFailed
from vlmdata.step import RecipeError

STOPPED = "vlmdata: stopped; run the same command again to resume"
INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with site(tmp_path_factory.mktemp("site"), 60, part_rows=10) as web:
        yield web


def group(leader: int) -> list[int]:
    """Return the processes of a process group that still run and are not zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_its = os.getpgid(int(folder.name)) == leader
        except ProcessLookupError:
            continue
        if is_its and is_at_work(int(folder.name)):
            found.append(int(folder.name))
    return found


def starts(out: Path) -> bool:
    return any((out / "work" / "logs").glob("*.jsonl"))


def works(out: Path) -> bool:
    return commits(out) > 0


def stopped_run(
    web: Site, out: Path, until: Callable[[Path], bool], signals: list[int], how: list[str]
) -> tuple[int, list[str]]:
    """Run the command as a terminal does and send the signals to all of its processes. Return its status and its last line."""
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(out), "--workers", "2", *how]
    with unfinished(web):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        while not until(out) and process.poll() is None:
            time.sleep(0.01)
        for number in signals:
            os.killpg(process.pid, number)
        output = process.communicate()[1]
        # A killed process takes a moment to end; a process that survives makes the test run into its time limit.
        while group(process.pid):
            time.sleep(0.01)
    assert "Traceback" not in output and "rror" not in output
    return process.returncode, output.splitlines()[-1:]


@pytest.mark.whole
@pytest.mark.parametrize("signals", [[INT], [INT, INT], [TERM]])
@pytest.mark.parametrize("until", [starts, works])
def test_local_workers_end_in_one_line(web, tmp_path, until, signals):
    assert stopped_run(web, tmp_path / "out", until, signals, ["--local"]) == (128 + signals[0], [STOPPED])


@pytest.mark.whole
@pytest.mark.parametrize(("until", "signals"), [(starts, [INT, INT]), (starts, [TERM]), (works, [INT])])
def test_ray_ends_in_one_line(web, tmp_path, until, signals):
    assert stopped_run(web, tmp_path / "out", until, signals, []) == (128 + signals[0], [STOPPED])


@pytest.mark.whole
def test_a_stopped_run_resumes(web, tmp_path):
    run(web.recipe, tmp_path / "whole", local=True, workers=2)
    stopped_run(web, tmp_path / "out", works, [INT, INT], ["--local"])
    run(web.recipe, tmp_path / "out", local=True, workers=2)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("number", [INT, TERM])
def test_an_interrupt_during_imports_ends_in_one_line(tmp_path, number):
    # imported in place of click; waits until it is stopped
    (tmp_path / "click.py").write_text("print('importing', flush=True)\ninput()\n")
    command = [sys.executable, "-m", "vlmdata", "steps"]
    paths = os.pathsep.join([str(tmp_path), os.getcwd(), *filter(None, sys.path)])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, text=True, **pipes) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert process.communicate()[1] == f"{STOPPED}\n"
    assert process.returncode == 128 + number


WORK = """
def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        raise ImportError("half of a module")
"""
TWICE = """
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
"""
AT_THE_END = """
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
work = lambda: 0
"""
IGNORED = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
work = lambda: os.kill(os.getpid(), signal.SIGINT) or 5
"""


@pytest.mark.parametrize(
    ("work", "status", "line"), [(WORK, 143, "end\n"), (TWICE, 130, "end\n"), (AT_THE_END, 130, ""), (IGNORED, 5, "")]
)
def test_an_interrupt_prints_at_most_one_line_in_any_handler(work, status, line):
    script = "import atexit, os, signal, sys\nfrom vlmdata.process import interrupt\n"
    script = f"{script}{work}\nsys.exit(interrupt.until_stopped(work, 'end', is_process=True))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, line)


SHUTS_DOWN = """
class Last:
    def __del__(self):  # runs when the interpreter shuts down
        os.write(2, b"shutdown")

last = Last()
atexit.register(os.write, 2, b"atexit")
work = lambda: print("whole") or 3
"""


def test_a_command_ends_without_the_shutdown_in_which_threads_of_arrow_abort():
    script = f"import atexit, os, sys\nfrom vlmdata.process import interrupt\n{SHUTS_DOWN}"
    script = f"{script}\nsys.exit(interrupt.until_stopped(work, 'end', is_process=True))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "whole\n", "atexit")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_verb_works_with_closed_output_streams(closed):
    done = subprocess.run(["sh", "-c", f'"$0" -m vlmdata steps language {closed}', sys.executable], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


DELAYED = """
def work():
    with interrupt.delayed():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        print("whole", flush=True)
    print("not reached")
"""
STARTS_A_PROCESS = """
from vlmdata.engine.drive import processes

def interrupt_after_sendfds(frame, event, arg):
    # the forkserver now forks a child, which waits for its data
    if event == "return" and frame.f_code.co_name == "sendfds":
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

def work():
    sys.setprofile(interrupt_after_sendfds)
    processes.start_process(processes.CONTEXT.Process(target=print, args=("whole",), kwargs={"flush": True}))
"""


@pytest.mark.parametrize("work", [DELAYED, STARTS_A_PROCESS])
def test_delayed_signals_leave_a_block_whole(work):
    script = f"import os, signal, sys\nfrom vlmdata.process import interrupt\n{work}\n"
    script = f"{script}\nsys.exit(interrupt.until_stopped(work, 'end', is_process=True))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "whole\n", "end\n")


class Starts:
    """A stand-in for `ray.init` that raises each of the given errors once."""

    def __init__(self, errors: list[Exception]):
        self.errors = errors

    def __call__(self, **options: object) -> None:
        if self.errors:
            raise self.errors.pop(0)


FAILURES = [
    Exception("The current node timed out\nduring startup."),
    RuntimeError("no"),
    TimeoutError("late"),
    ConnectionError(),
]


@pytest.mark.parametrize("error", FAILURES)
def test_a_failed_start_of_ray_is_retried_once(monkeypatch, error):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 3.0})
    monkeypatch.setattr("ray.init", Starts([error]))
    with on_ray.cluster(None, 3) as cpus:
        assert cpus == 3
    output = " ".join(str(error).split()) or "ConnectionError"
    monkeypatch.setattr("ray.init", Starts([error, error]))
    with (
        pytest.raises(WorkFailed, match=f"^Ray does not start here: {output}; try again, or use --local$"),
        on_ray.cluster(None, 3),
    ):
        pass
    monkeypatch.setattr("ray.init", Starts([error]))
    with pytest.raises(RecipeError, match=f"^no Ray cluster answers at here:1: {output}$"), on_ray.cluster("here:1", 3):
        pass


def test_a_start_of_ray_on_a_full_disk_is_not_retried(monkeypatch):
    full = Starts([OSError(28, "No space left on device"), OSError(28, "No space left on device")])
    monkeypatch.setattr("ray.init", full)
    with pytest.raises(OSError, match="No space left"), on_ray.cluster(None, 3):
        pass
    assert len(full.errors) == 1


@pytest.mark.whole
def test_a_lost_cluster_is_reported_in_one_line(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 3.0})
    monkeypatch.setattr(ray, "init", Starts([]))
    lost = pytest.raises(WorkFailed, match=r"^Ray failed: .*gone; run the same command again to resume$")
    with lost, on_ray.cluster(None, 3):
        raise ray.exceptions.RaySystemError("gone")
