"""The examples of docs/trainers.md train on every sample once over two ranks, and resume exactly from their own checkpoints.

22 samples on two ranks with batches of two make six steps per epoch, of which the last has two samples of the next epoch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.loader.tars import flat, keys_of, sample_files, write_tar
from tests.loader.test_webdataset import jpeg
from tests.train.made_tiled import TILED
from vlmdata import stream
from vlmdata.loader.index.build_index import build_index

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parent.parent.parent
EXAMPLES, PAGE = ROOT / "docs" / "trainers", ROOT / "docs" / "trainers.md"
PRELOAD = {  # the modules that a program imports
    "torchrun": ["torchvision"],
    "accelerate": ["accelerate", "torchvision"],
    "transformers": ["transformers.trainer", "tensorboard", "torchvision"],
    "trl": ["trl.trainer.sft_trainer", "tensorboard", "torchvision"],
    "lightning": ["lightning.pytorch", "torchvision"],
}
ON_CPU = {"trl": [("run, per_device", "run, use_cpu=True, bf16=False, per_device")]}  # TRL trains in bfloat16, for GPUs
WHOLE, KILLED, AGAIN, LAST, NO_WORKERS, ONE_RANK = "whole", "killed", "again", "last", "no workers", "one rank"


@dataclass(frozen=True)
class Ran:
    """What one job trained on: for each step, the keys in the order of the stream, and the losses of the ranks."""

    keys: list[list[str]]
    losses: list[list[float]]
    codes: list[int]
    weights: dict[str, torch.Tensor]


def ran(job: dict[str, Any]) -> Ran:
    folder = Path(job["record"])
    ranks = [[json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()] for rank in range(job["ranks"])]
    keys = [
        [key for place in zip(*(one["keys"] for one in step), strict=True) for key in place]
        for step in zip(*ranks, strict=False)
    ]
    weights = torch.load(folder / "weights.pt") if (folder / "weights.pt").exists() else {}
    return Ran(keys, [[one["loss"] for one in step] for step in zip(*ranks, strict=False)], job["codes"], weights)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tars")
    for shard in range(2):
        keys = [f"{shard}-{number}" for number in range(11)]
        files = [file for key in keys for file in sample_files(key, {"jpg": jpeg(len(key)), "txt": key.encode()})]
        write_tar(folder / f"{shard:05}.tar", files)
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, made = tmp_path_factory.mktemp("model"), TILED["Idefics3"]
    tokenizer = made.tokenizer()
    torch.manual_seed(0)
    made.model(tokenizer).save_pretrained(folder)
    made.processor(tokenizer).save_pretrained(folder)
    return folder


def changed(program: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    """Return a copy of a program in which texts are replaced. Each text must occur once."""
    text = program.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    copy = folder / f"{len(list(folder.iterdir()))}.py"
    copy.write_text(text)
    return copy


def run_jobs(folder: Path, trainer: str, jobs: list[dict[str, Any]]) -> dict[str, Ran]:
    """Run jobs one after the other and return what they trained on, by name."""
    for job in jobs:
        job["record"] = str(folder / "records" / job["name"])
    plan = folder / "jobs.json"
    plan.write_text(json.dumps({"preload": PRELOAD[trainer], "model": jobs[0]["arguments"][1], "jobs": jobs}))
    subprocess.run(
        [sys.executable, "-m", "tests.loader.on_trainers", str(plan)],
        check=True,
        cwd=ROOT,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    return {job["name"]: ran(job) for job in json.loads(plan.read_text())["jobs"]}


@pytest.fixture(scope="module", params=list(PRELOAD))
def runs(request: pytest.FixtureRequest, tars: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Run one example to its end, kill it in its fourth step, and resume it three times from the checkpoint of step two."""
    trainer = request.param
    library = PRELOAD[trainer][0].partition(".")[0]
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    folder = tmp_path_factory.mktemp(trainer)
    programs, saved = tmp_path_factory.mktemp("programs"), str(folder / KILLED)
    example = changed(EXAMPLES / f"train_{trainer}.py", programs, *ON_CPU.get(trainer, []))
    no_workers = changed(example, programs, ("num_workers=2", "num_workers=0"))
    devices = [("devices=2", "devices=1")] if trainer == "lightning" else []
    one_rank = changed(example, programs, ("batch_size=2", "batch_size=4"), *devices)

    def job(name: str, program: Path, run: str, ranks: int = 2, die_at: int | None = None, **more: Any) -> dict[str, Any]:
        arguments = [str(tars), str(model), str(folder / run)]
        return {"name": name, "program": str(program), "arguments": arguments, "ranks": ranks, "die_at": die_at, **more}

    return run_jobs(
        folder,
        trainer,
        [
            job(WHOLE, example, WHOLE),
            job(KILLED, example, KILLED, die_at=4),
            job(NO_WORKERS, no_workers, NO_WORKERS, copy=saved),
            job(ONE_RANK, one_rank, ONE_RANK, ranks=1, copy=saved),
            job(AGAIN, example, KILLED, die_at=6),
            job(LAST, example, KILLED),
        ],
    )


@pytest.mark.parametrize("name", list(PRELOAD))
def test_the_page_shows_the_program_that_runs(name: str) -> None:
    program = (EXAMPLES / f"train_{name}.py").read_text()
    assert f"```python\n{program}```" in PAGE.read_text() and len(program.splitlines()) <= 40


@pytest.mark.slow
def test_two_ranks_train_on_every_sample_once_an_epoch(runs: dict[str, Ran], tars: Path) -> None:
    samples = stream(tars, torch=False)
    epochs = [keys_of(samples) for _ in range(3)]
    assert sorted(epochs[0]) == sorted(set(epochs[0])) and len(epochs[0]) == 22
    assert flat(runs[WHOLE].keys) == epochs[0] + epochs[1][:2] + epochs[1] + epochs[2][:2]
    assert runs[WHOLE].codes == [0, 0] and runs[KILLED].codes != [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [NO_WORKERS, LAST])
def test_a_killed_run_resumes_with_the_samples_losses_and_weights(runs: dict[str, Ran], resumed: str) -> None:
    parts = [(KILLED, 2), (NO_WORKERS, None)] if resumed == NO_WORKERS else [(KILLED, 2), (AGAIN, 4), (LAST, None)]
    assert flat(runs[name].keys[:steps] for name, steps in parts) == runs[WHOLE].keys
    assert flat(runs[name].losses[:steps] for name, steps in parts) == runs[WHOLE].losses
    whole, last = runs[WHOLE].weights, runs[resumed].weights
    assert whole.keys() == last.keys() and all(torch.equal(whole[name], last[name]) for name in whole)


@pytest.mark.slow
def test_a_run_of_two_ranks_resumes_on_one_rank(runs: dict[str, Ran]) -> None:
    assert runs[KILLED].keys[:2] + runs[ONE_RANK].keys == runs[WHOLE].keys
