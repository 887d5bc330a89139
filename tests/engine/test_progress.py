"""A run reports its progress: live counts in a terminal, few lines in a pipe, an estimate of the size, and a log file."""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from tests.engine.site import site
from vlmdata.engine.drive.progress import Progress
from vlmdata.engine.output.run_log import RunLog, clear_errors
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.notes import quiet
from vlmdata.terminal import width

pytestmark = pytest.mark.whole


def log(out: Path) -> list[dict]:
    (path,) = (out / "work" / "logs").iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def counts(rows: int, dropped: int = 0, size: int = 0) -> dict:
    reasons = {"download: http_404": dropped} if dropped else {}
    return {"rows": rows, "alive": rows - dropped, "dropped": reasons, "bytes": size, "measured": {}, "asked": {}}


def test_a_pipe_gets_one_line_per_stage_and_one_estimate(tmp_path, capsys):
    store = LocalStore(tmp_path)
    with Progress(100_000, RunLog(store, {}), tmp_path) as progress:
        progress.stage("ingest")
        for _ in range(50):
            progress.add(counts(1000, 100, 20_000_000))
        progress.stage("count")
        for _ in range(100):
            progress.add(counts(1000, 100))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("estimate for 100,000 rows: 2.0 GB of images and as much again in tars")
    assert "kept 45,000; download: http_404 5,000" in lines[1] and "1.0 GB" in lines[1]
    stages = [line for line in log(tmp_path) if line["event"] == "counts"]
    assert [(line["name"], line["rows"], line["dropped"]) for line in stages] == [
        ("ingest", 50_000, {"download: http_404": 5000}),
        ("count", 100_000, {"download: http_404": 10_000}),
    ]


class Clock:
    """A clock that the test advances."""

    now = 1000.0

    def __call__(self):
        return self.now


def test_a_pipe_gets_a_line_every_thirty_seconds_even_if_no_partition_ends(tmp_path, capsys):
    clock = Clock()
    progress = Progress(1000, RunLog(LocalStore(tmp_path), {}), tmp_path, clock=clock)  # not entered, so no thread calls `tick`
    progress.stage("ingest")
    for _ in range(2):
        clock.now += 15
        progress.add(counts(100, 10, 1_000_000))
    for seconds in (29, 1, 29):
        clock.now += seconds
        progress.tick()
    progress.stage("dedupe_phash")
    clock.now += 30
    progress.tick()
    line = "ingest 200 of 1,000 rows 7/s 2.0 MB 20% 0:02:00 left  kept 180; download: http_404 20"
    printed = [" ".join(printed.split()) for printed in capsys.readouterr().err.splitlines()]
    assert printed == [
        *(f"0:0{minute} {' '.join(line.split())}" for minute in ("0:30", "1:00")),
        "ingest 200 rows 2/s 2.0 MB 89.0 s kept 180; download: http_404 20",
        "0:01:59 dedupe_phash: running for 0:00:30",
    ]


def test_a_thread_shows_the_time_while_no_partition_ends(tmp_path, monkeypatch):
    ticked = threading.Event()
    monkeypatch.setattr(Progress, "tick", lambda self: ticked.set())
    with Progress(1000, RunLog(LocalStore(tmp_path), {})):
        assert ticked.wait(60)


def test_a_quiet_run_shows_only_that_the_disk_is_too_small(tmp_path, capsys):
    with quiet(), Progress(10**12, RunLog(LocalStore(tmp_path), {}), tmp_path) as progress:
        progress.stage("ingest")
        for _ in range(3):
            progress.add(counts(1000, size=20_000_000))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("NOT ENOUGH")


def written_on_a_terminal(columns, work, monkeypatch):
    """Return what `work` writes to standard error, if this is a terminal with this number of columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    monkeypatch.delenv("COLUMNS", raising=False)
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        work()
        monkeypatch.undo()
        terminal.flush()
        output = b""
        while select.select([ours], [], [], 0)[0]:
            output += os.read(ours, 1 << 16)
    os.close(ours)
    return output.decode()


@pytest.mark.parametrize("columns", [20, 40, 80, 100, 200])
@pytest.mark.parametrize("label", ["a_label_" * 8, "去重去重" * 15, "x\x1b[2Jy"])
def test_no_line_is_wider_than_the_terminal(columns, label, tmp_path, monkeypatch):
    def work():
        clock = Clock()
        progress = Progress(4 * 10**9, RunLog(LocalStore(tmp_path), {}), clock=clock)
        for name in (label, f"{label} + {label}", "count"):
            progress.stage(name)
            for _ in range(2):
                clock.now += 1
                dropped = {f"{label}: {label}": 10**9, "download: http_404": 2, f"{label}: b": 7, "a: c": 1}
                progress.add({**counts(10**9, size=10**12), "alive": 5, "dropped": dropped})

    output = written_on_a_terminal(columns, work, monkeypatch)
    lines = [line.removeprefix("\x1b[K") for line in output.replace("\r\n", "\r").split("\r")]
    assert max(map(width, lines)) <= columns and all(line.isprintable() for line in lines)
    assert any("2,000,000,000 rows" in line for line in lines) or columns < 40


def test_the_columns_of_the_table_are_aligned_for_names_of_any_width(tmp_path, capsys):
    clock = Clock()
    progress = Progress(None, RunLog(LocalStore(tmp_path), {}), clock=clock)
    for name in ("count", "a_label_" * 8, "去重去重" * 15):
        progress.stage(name)
        clock.now += 1
        progress.add(counts(10**9, size=10**12))
    progress.stage("pack")
    lines = capsys.readouterr().err.splitlines()
    assert {width(line[: line.index(" rows")]) for line in lines} == {47 - 5} and len({width(line) for line in lines}) == 1


def test_a_disk_too_small_for_the_dataset_is_reported_early(tmp_path, capsys):
    with Progress(10**12, RunLog(LocalStore(tmp_path), {}), tmp_path) as progress:
        progress.stage("ingest")
        for _ in range(3):
            progress.add(counts(1000, size=20_000_000))
    assert "NOT ENOUGH" in capsys.readouterr().err


def test_a_terminal_shows_counts_in_one_updated_line_and_the_log_records_the_end(tmp_path):
    with site(tmp_path, 64, part_rows=4) as web:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(tmp_path / "out"), "--local"]
        driver = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL)
        os.close(theirs)
        output = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            output += data
        assert driver.wait() == 0
        os.close(ours)
    assert b"\r\x1b[K" in output and b"estimate for 64 rows" in output
    events = [line["event"] for line in log(tmp_path / "out")]
    assert events[0] == "begin" and events[-1] == "end" and log(tmp_path / "out")[-1]["kept"] == 48


def test_a_failed_run_logs_its_reason_until_a_takedown_clears_it(tmp_path):
    store = LocalStore(tmp_path)
    one = RunLog(store, {"steps": []}, limit=None)
    one.add("failed", error="OSError: http://example.org/secret.jpg")
    assert log(tmp_path)[-1]["error"].endswith("secret.jpg")
    clear_errors(store)
    assert [line["event"] for line in log(tmp_path)] == ["begin", "failed"] and log(tmp_path)[-1]["error"] is None
