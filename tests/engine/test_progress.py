"""A run reports its progress: live counts in a terminal, few lines in a pipe, an estimate of the size, and a log file."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.site import site
from vlmdata.engine.drive.progress import Progress
from vlmdata.engine.output.run_log import RunLog, clear_errors
from vlmdata.engine.store.folder_store import LocalStore

pytestmark = pytest.mark.whole


def log(out: Path) -> list[dict]:
    (path,) = (out / "work" / "logs").iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def counts(rows: int, dropped: int = 0, size: int = 0) -> dict:
    reasons = {"download: http_404": dropped} if dropped else {}
    return {"rows": rows, "alive": rows - dropped, "dropped": reasons, "bytes": size, "measured": {}}


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
    assert "alive 45,000; download: http_404 5,000" in lines[1] and "1.0 GB" in lines[1]
    stages = [line for line in log(tmp_path) if line["event"] == "counts"]
    assert [(line["name"], line["rows"], line["dropped"]) for line in stages] == [
        ("ingest", 50_000, {"download: http_404": 5000}),
        ("count", 100_000, {"download: http_404": 10_000}),
    ]


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
