"""Two ranks under torchrun, by gloo on the CPU: the same training as on one, sharded or not, and back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.runs import MODEL, tiny_recipe, weights, write_data
from vlmdata_train import checkpoint
from vlmdata_train.loop import run_training

ROOT = Path(__file__).resolve().parents[2]


def torchrun(ranks: int, recipe: Path, *settings: str) -> str:
    """Run the command line as a user would and return its standard error."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
        "-m", "vlmdata_train", "instruct", str(recipe), *[word for s in settings for word in ("--set", s)],
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def write_recipe(path: Path, data: str, out: Path) -> Path:
    tree = {
        "model": MODEL, "data": data, "out": str(out), "steps": 4, "lr": 1e-2,
        "speed": {"device": "cpu"}, "logs": {"every": 2, "tensorboard": False}, "checkpoints": {"every": 2, "keep": 9},
        "batches": {"tokens": 192, "sample_tokens": 96, "workers": 1},
        "parts": {"encoder": {"frozen": True}},
    }  # fmt: skip
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


@pytest.mark.slow
def test_two_ranks_train_alike_under_ddp_and_fsdp_and_one_rank_goes_on(tmp_path):
    data = write_data(tmp_path / "data", captions=40, conversations=20)
    for how in ("ddp", "fsdp"):
        torchrun(2, write_recipe(tmp_path / f"{how}.yaml", data, tmp_path / how), f"speed.parallel={how}")
    ddp, fsdp = (weights(tmp_path / how / "checkpoints/step_00000004") for how in ("ddp", "fsdp"))
    assert ddp.keys() == fsdp.keys()
    for name in ddp:
        assert torch.allclose(ddp[name], fsdp[name], atol=2e-5), name

    saved = checkpoint.read_saved(tmp_path / "fsdp/checkpoints/step_00000004")
    assert len(saved.data) == 2 and len(saved.random) == 2
    recipe = tiny_recipe(
        data, tmp_path / "fsdp", steps=6, parts={"encoder": {"frozen": True}}, speed={"device": "cpu"},
        batches={"tokens": 192, "sample_tokens": 96, "workers": 1},
    )  # fmt: skip
    result = run_training(recipe)  # on one rank
    assert result.steps == 6 and len(result.losses) == 2
    assert result.losses[-1] < 5.4  # an untrained one has 5.7: ln of 320


@pytest.mark.slow
def test_two_ranks_take_the_steps_that_one_takes_on_the_same_samples(tmp_path):
    """Rows of one sample each: two ranks with two rows see in a step what one rank with four sees, in another order."""
    data = write_data(tmp_path / "data", captions=0, conversations=48)
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "two")
    shape = "{pack: false, samples: 4, sample_tokens: 96, workers: 1}"
    torchrun(2, recipe, f"batches={shape}", "steps=2", "optimizer={warmup: 0}")
    alone = "{pack: false, samples: 8, sample_tokens: 96, workers: 1}"
    torchrun(1, recipe, f"batches={alone}", "steps=2", "optimizer={warmup: 0}", f"out={tmp_path / 'one'}")
    two, one = (weights(tmp_path / n / "checkpoints/step_00000002") for n in ("two", "one"))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-5), name
