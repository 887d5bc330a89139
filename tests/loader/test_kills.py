"""Processes are killed by SIGKILL at random moments, and a resume from the state loses and repeats no sample."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.loader.tars import caption_set, keys_of
from vlmdata import stream
from vlmdata.loader.stream import ReadOptions

pytestmark = pytest.mark.whole

# A training rank records each batch and then its state, so the state never counts a batch that was not used.
TRAINER = """
import json, os, sys
from vlmdata import stream
from vlmdata.loader.stream import ReadOptions
folder, cache, log, rank, world, workers, batch = sys.argv[1:8]
reading = ReadOptions(cache=cache)
samples = stream(folder, batch_size=int(batch), epochs=2, rank=int(rank), world_size=int(world), reading=reading)
if len(sys.argv) > 8:
    samples.load_state_dict(json.loads(sys.argv[8]))
with open(log, "a", buffering=1) as file:
    for number, made in enumerate(samples.loader(int(workers))):
        keys = [None if "__pad__" in sample else sample["__key__"] for sample in made]
        file.write(json.dumps({"keys": keys, "state": samples.state_dict()}) + "\\n")
        if number + 1 == int(os.environ.get("STOP_AFTER", -1)):
            os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_set(tmp_path_factory.mktemp("tars"), [37, 1, 50, 60])  # 148 samples


@pytest.mark.slow
def test_runs_killed_at_random_resume_with_other_numbers_of_ranks_and_workers(tars: Path, tmp_path: Path) -> None:
    whole = keys_of(stream(tars, epochs=2, reading=ReadOptions(cache=tmp_path), torch=False))
    chance = random.Random(7)
    given: list[str] = []
    state: dict[str, Any] | None = None
    for leg in range(4):
        world, workers, batch = chance.randint(1, 3), chance.randint(0, 3), chance.randint(2, 6)
        stop = chance.randint(2, 5) if leg < 3 else -1
        logs = [tmp_path / f"{leg}-{rank}.jsonl" for rank in range(world)]
        commands = [
            [sys.executable, "-c", TRAINER, str(tars), str(tmp_path), str(log), str(rank), str(world), str(workers), str(batch)]
            + ([json.dumps(state)] if state else [])
            for rank, log in enumerate(logs)
        ]
        running = [subprocess.Popen(command, env=os.environ | {"STOP_AFTER": str(stop)}) for command in commands]
        ended = [process.wait(timeout=800) for process in running]
        assert ended == [-signal.SIGKILL if stop > 0 else 0] * world
        ranks = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
        assert len({len(steps) for steps in ranks}) == 1
        for step in zip(*ranks, strict=True):
            assert all(one["state"] == step[0]["state"] for one in step)
            given += [one["keys"][place] for place in range(batch) for one in step if one["keys"][place] is not None]
        state = ranks[0][-1]["state"]
    assert given == whole


def test_a_killed_worker_raises_an_error_and_the_state_stays_valid(tars: Path, tmp_path: Path) -> None:
    samples = stream(tars, batch_size=4, reading=ReadOptions(cache=tmp_path))
    whole = keys_of(stream(tars, batch_size=4, reading=ReadOptions(cache=tmp_path), torch=False))
    given: list[str] = []
    others = _children()
    with pytest.raises(RuntimeError, match="worker"):
        for number, batch in enumerate(samples.loader(2, prefetch_factor=1)):
            given += [sample["__key__"] for sample in batch]
            if number == 5:
                for worker in _children() - others:
                    os.kill(worker, signal.SIGKILL)
                while True:  # PyTorch raises here when it notices the dead worker, not while the loader counts the next batch.
                    time.sleep(0.01)
    state = samples.state_dict()
    assert state["position"] == len(given) >= 24
    again = stream(tars, batch_size=4, reading=ReadOptions(cache=tmp_path))
    again.load_state_dict(state)
    assert given + keys_of(again.loader(3)) == whole


def _children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
