"""Two ranks under torchrun, with gloo on the CPU, train like one rank, sharded or not, and one rank resumes their run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.inputs.tars import jpeg, write_tar
from tests.train.runs import MODEL, made_model, tiny_recipe, weights, write_data
from tests.train.shards import conversation_samples
from tests.train.tiny import pack, sample
from vlmdata_train.convert import checkpoint
from vlmdata_train.convert.restore import restore
from vlmdata_train.data import open_feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.lora import merge_lora

ROOT = Path(__file__).resolve().parents[2]
# Each rank is a process that must first import torch.
pytestmark = [pytest.mark.whole, pytest.mark.slow]


def start(ranks: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module under torchrun, as a user would."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    return subprocess.run([*launcher, *words], cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)


def torchrun(ranks: int, recipe: Path, *settings: str) -> str:
    """Train from the command line and return its standard error."""
    done = start(ranks, "vlmdata_train", "instruct", str(recipe), *[word for s in settings for word in ("--set", s)])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def evaluations(out: Path) -> list[dict]:
    """Return the results of a run's evaluations."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "held_out"]


def write_recipe(path: Path, data: str, out: Path) -> Path:
    tree = {
        "model": MODEL, "data": data, "out": str(out), "steps": 4, "lr": 1e-2,
        "speed": {"device": "cpu"}, "logs": {"every": 2, "tensorboard": False}, "checkpoints": {"every": 2, "keep": 9},
        "batches": {"tokens": 192, "sample_tokens": 96, "workers": 1},
        "parts": {"encoder": {"frozen": True}},
    }  # fmt: skip
    path.write_text(json.dumps(tree))  # JSON is valid YAML
    return path


def test_two_ranks_train_equally_under_ddp_and_fsdp_and_one_rank_resumes(tmp_path):
    data = write_data(tmp_path / "data", captions=40, conversations=20)
    held = write_data(tmp_path / "held", captions=5, conversations=0, tars=1)  # five, so that the ranks' shares are unequal
    evaluated = f"held_out={{path: {held}, every: 2, samples: 5, answers: 5, answer_tokens: 3}}"
    for how in ("ddp", "fsdp"):
        torchrun(2, write_recipe(tmp_path / f"{how}.yaml", data, tmp_path / how), f"speed.parallel={how}", evaluated)
    for ddp, fsdp in zip(evaluations(tmp_path / "ddp"), evaluations(tmp_path / "fsdp"), strict=True):
        assert ddp["loss"] == pytest.approx(fsdp["loss"], rel=1e-4) and ddp["exact_of"] == fsdp["exact_of"] != {}
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
    result = run_training(recipe)  # resumed on one rank
    assert result.steps == 6 and len(result.losses) == 2
    assert result.losses[-1] < 5.4  # an untrained model has 5.7, the ln of 320


def test_lora_of_visual_experts_trains_equally_under_ddp_and_fsdp(tmp_path):
    """The experts are weights of the fusion but are called inside the language model's sharded layers."""
    data = write_data(tmp_path / "data", captions=40, conversations=20)
    design = ["model.fusion=visual_experts", "model.positions=shared", "steps=2", "speed.recompute=all"]
    lora = "{lora: {rank: 2, alpha: 4, dropout: 0.0}}"
    parts = f"parts={{encoder: {{frozen: true}}, abstractor: {{frozen: true}}, language: {lora}, fusion: {lora}}}"
    for how in ("ddp", "fsdp"):
        recipe = write_recipe(tmp_path / f"{how}.yaml", data, tmp_path / how)
        torchrun(2, recipe, f"speed.parallel={how}", parts, *design)
    ddp, fsdp = (weights(tmp_path / how / "checkpoints/step_00000002") for how in ("ddp", "fsdp"))
    assert ddp.keys() == fsdp.keys() and all(ddp[name].any() for name in ddp if "lora_B" in name)
    assert len([name for name in ddp if "lora_B" in name]) == 2 * 14
    for name in ddp:
        assert torch.allclose(ddp[name], fsdp[name], atol=2e-5), name
    model, _ = restore(tmp_path / "fsdp/checkpoints/step_00000002", "cpu")
    batch = pack(model, [sample(model, 12, 2, 1)])
    with torch.no_grad():
        before = model.logits(batch)
        assert merge_lora(model) == 28
        torch.testing.assert_close(model.logits(batch), before, rtol=1e-4, atol=1e-5)


def test_ranks_can_join_a_process_group_several_times(tmp_path):
    done = start(2, "tests.train.joined_again", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.read_text() for path in tmp_path.glob("rank_*")} == {"[3.0, 3.0, 3.0]"}


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_rank_without_images_runs_all_experts_and_routers(how, tmp_path):
    """The gradients are the mean of those of a batch with images and a batch without, computed on one rank."""
    done = start(2, "tests.train.images_on_one_rank", how, str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 3
    for weights_compared, difference in found.values():
        assert weights_compared > 40 and difference < 1e-5


def test_two_ranks_take_the_same_steps_as_one_rank(tmp_path):
    """With one sample per row, two ranks with two rows each see in a step the samples that one rank with four rows sees."""
    data = write_data(tmp_path / "data", captions=0, conversations=48)
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "two")
    shape = "{pack: false, samples: 4, sample_tokens: 96, workers: 1}"
    torchrun(2, recipe, f"batches={shape}", "steps=2", "optimizer={warmup: 0}")
    alone = "{pack: false, samples: 8, sample_tokens: 96, workers: 1}"
    torchrun(1, recipe, f"batches={alone}", "steps=2", "optimizer={warmup: 0}", f"out={tmp_path / 'one'}")
    two, one = (weights(tmp_path / n / "checkpoints/step_00000002") for n in ("two", "one"))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-5), name


@pytest.mark.parametrize(
    "language",
    [{"model_type": "phi"}, {"model_type": "gemma2", "head_dim": 16, "sliding_window": 8, "final_logit_softcapping": 3.0}],
    ids=["Phi-2: an output layer with a bias", "Gemma 2: tied to the embeddings, capped"],
)
def test_any_output_layer_learns_equally_on_one_rank_two_ranks_and_two_shards(tmp_path, language):
    data = write_data(tmp_path / "data", captions=0, conversations=48)
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "none")
    tree = json.loads(recipe.read_text())
    shape = {**MODEL["language"]["hf_causal"]["config"], **language}
    recipe.write_text(json.dumps({**tree, "model": {**MODEL, "language": {"hf_causal": {"config": shape}}}}))
    for name, ranks, samples, how in (("one", 1, 8, "ddp"), ("ddp", 2, 4, "ddp"), ("fsdp", 2, 4, "fsdp")):
        batches = f"{{pack: false, samples: {samples}, sample_tokens: 96, workers: 1}}"
        torchrun(ranks, recipe, f"batches={batches}", "steps=2", "optimizer={warmup: 0}", f"out={tmp_path / name}",
                 f"speed.parallel={how}")  # fmt: skip
    one, ddp, fsdp = (weights(tmp_path / name / "checkpoints/step_00000002") for name in ("one", "ddp", "fsdp"))
    assert one.keys() == ddp.keys() == fsdp.keys()
    assert ("model.language.lm_head.bias" in one or "language.lm_head.bias" in one) == (language["model_type"] == "phi")
    for name in one:
        assert torch.allclose(one[name], ddp[name], atol=2e-5) and torch.allclose(one[name], fsdp[name], atol=2e-5), name


def test_two_fsdp_ranks_resume_one_rank_with_split_bf16_weights(tmp_path):
    data = write_data(tmp_path / "data", captions=40, conversations=20)
    speed = {"device": "cpu", "precision": "bf16"}
    shape = {"tokens": 192, "sample_tokens": 96, "workers": 1}
    parts = {"encoder": {"frozen": True}}
    run_training(tiny_recipe(data, tmp_path / "run", steps=2, parts=parts, speed=speed, batches=shape))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "run")
    printed = torchrun(2, recipe, "speed.parallel=fsdp", "speed.precision=bf16")
    assert "resumed from" in printed
    before, after = (optimizer_state(tmp_path / f"run/checkpoints/step_0000000{n}") for n in (2, 4))
    assert {name: (t.dtype, t.shape) for name, t in before.items()} == {name: (t.dtype, t.shape) for name, t in after.items()}
    assert {t.dtype for t in after.values()} >= {torch.int16, torch.float32}
    assert any(not torch.equal(before[name], after[name]) for name in before if name.endswith("/low"))


def optimizer_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint's optimizer."""
    return {name: t for file in checkpoint.glob("optimizer-*.safetensors") for name, t in load_file(file).items()}


def test_a_nan_loss_on_the_second_rank_is_reported_by_the_first(tmp_path):
    """A picture that is all white breaks the tower. The rank that reads it is not the rank that reports."""
    data = write_data(tmp_path / "data", captions=0, conversations=16, tars=1)
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "run")
    model = {"encoder": {"tests.train.tiny.NoWhite": {}}, "language": MODEL["language"]}
    rows = {"pack": False, "samples": 2, "sample_tokens": 96, "workers": 1}
    tree = {**json.loads(recipe.read_text()), "model": model, "batches": rows, "parts": {}}
    recipe.write_text(json.dumps(tree))
    alone = tiny_recipe(data, tmp_path / "unused", model=model, batches=rows)
    built = made_model(alone, alone.model, Ranks(0, 1, torch.device("cpu")))
    second = open_feed.feed_of(alone, built, data, Ranks(1, 2, torch.device("cpu")), seed=alone.seed, epochs=None)
    key = next(k.split()[1] for batch, _ in second for k in batch.keys if int(k.split()[1][1:]) % 5)  # a sample with an image
    samples = conversation_samples(16)
    white = jpeg(np.full((48, 48, 3), 255, np.uint8))
    write_tar(tmp_path / "data/00000.tar", [{**s, "0.jpg": white} if s["__key__"] == key else s for s in samples])
    done = start(2, "vlmdata_train", "instruct", str(recipe))
    assert done.returncode != 0
    # printed as a line and in the error; other ranks may write before the line
    printed = re.findall(r"step 1: the loss nan is broken .*highest loss: (.*)", done.stderr)
    assert {samples.split()[1] for samples in printed} == {key}


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_the_rank_with_the_least_memory_decides_how_many_blocks_are_recomputed(how, tmp_path):
    """The limits leave no memory beyond full recomputation, memory for two and a half blocks, and memory for all blocks."""
    done = start(2, "tests.train.on_ranks", how, str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["chosen"] == [[[6, 6], [4, 4], [0, 0]]] * 2
    assert found["same"] == [True, True] and found["weights"] > 50
