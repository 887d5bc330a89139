"""A checkpoint is complete or does not exist, and only the newest and the best are kept."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.train.runs import MODEL, tiny_recipe, weights, write_data
from tests.train.saving import RANKS, save
from vlmdata.step import RecipeError
from vlmdata_train.convert import checkpoint
from vlmdata_train.data import open_feed
from vlmdata_train.loop.adamw import SplitAdamW
from vlmdata_train.loop.loop import run_training

pytestmark = pytest.mark.whole

ROOT = Path(__file__).resolve().parents[2]


SAVER = """
import sys; sys.path[:0] = [{root!r}]
from pathlib import Path
from types import SimpleNamespace
import torch
from torch import nn
from tests.train.saving import save
model = nn.Sequential(*[nn.Linear(400, 400) for _ in range(6)])
for step in range(1, 10**6):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(step)
    save(Path({folder!r}), model, SimpleNamespace(state={{}}), step)
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay_ms", [2, 9])
def test_a_kill_while_saving_leaves_the_last_good_checkpoint(tmp_path, delay_ms):
    program = SAVER.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 3:
            break
    time.sleep(delay_ms / 1000)
    os.kill(process.pid, signal.SIGKILL)
    steps = [3, *map(int, process.communicate()[0].split())]
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and checkpoint.read_saved(newest).step in (steps[-1], steps[-1] + 1)
    assert len(list(tmp_path.glob("step_*"))) >= steps[-1]
    for folder in tmp_path.glob("step_*"):
        step = checkpoint.read_saved(folder).step
        model = nn.Sequential(*[nn.Linear(400, 400) for _ in range(6)])
        checkpoint.load_model(folder, model)
        assert all((p == step).all() for p in model.parameters())
    model = nn.Linear(2, 2)
    save(tmp_path, model, torch.optim.AdamW(model.parameters()), 10**6)
    assert not list(tmp_path.glob(".part-*"))  # the unfinished files of the killed process are removed


def test_optimizer_state_is_restored_in_its_types(tmp_path):
    """torch's own load_state_dict would round fp32 moments to bf16 and corrupt the int16 halves."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8).to(torch.bfloat16)
    optimizer = SplitAdamW(model.parameters(), lr=1e-3)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    path = save(tmp_path, model, optimizer, 1)
    other = nn.Linear(8, 8).to(torch.bfloat16)
    restored = SplitAdamW(other.parameters(), lr=1e-3)
    checkpoint.load_model(path, other)
    checkpoint.load_optimizer(path, other, restored)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        wanted, got = optimizer.state[p], restored.state[q]
        assert {k: v.dtype for k, v in wanted.items()} == {k: v.dtype for k, v in got.items()}
        assert all(torch.equal(wanted[k], got[k]) for k in wanted)


def test_frozen_weights_are_written_once_and_linked(tmp_path):
    parts = {"encoder": {"frozen": True}, "language": {"frozen": True}}
    run_training(tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", parts=parts))
    files = [file.stat() for file in sorted((tmp_path / "out/checkpoints").glob("step_*/frozen-*.safetensors"))]
    assert len(files) == 2 and len({file.st_ino for file in files}) == 1


def test_the_newest_and_the_best_checkpoint_are_kept(tmp_path):
    for step in range(1, 7):
        (tmp_path / f"step_{step:08d}").mkdir()
    checkpoint.prune(tmp_path, 2, "step_00000003")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000003", "step_00000005", "step_00000006"]


def test_a_run_keeps_the_checkpoint_with_the_lowest_held_out_loss(tmp_path):
    """The model is evaluated at each save, even though evaluations are set further apart. A far too high rate makes later
    ones worse."""
    data = write_data(tmp_path / "data", captions=40)
    recipe = tiny_recipe(data, tmp_path / "out", lr=0.5, steps=6, checkpoints={"every": 1, "keep": 1},
                         held_out={"fraction": 0.2, "every": 4, "samples": 99}, optimizer={"schedule": "constant"})  # fmt: skip
    run_training(recipe)
    lines = map(json.loads, (tmp_path / "out/log.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "held_out"}
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == [1, 2, 3, 4, 5, 6] and best != 6
    kept = sorted(path.name for path in (tmp_path / "out/checkpoints").iterdir())
    assert kept == [f"step_{best:08d}", "step_00000006"]


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    path = save(tmp_path, nn.Linear(4, 4), torch.optim.SGD([nn.Parameter(torch.zeros(1))]), 1)
    with pytest.raises(ValueError, match=r"'bias' has the shape \(4,\), but the model needs \(5,\)"):
        checkpoint.load_model(path, nn.Linear(4, 5))
    larger = nn.Linear(4, 4)
    larger.register_parameter("more", nn.Parameter(torch.zeros(2)))
    with pytest.raises(ValueError, match="lacks the weight 'more'"):
        checkpoint.load_model(path, larger)


def test_a_checkpoint_restores_to_a_model_that_gives_the_same_logits(tmp_path):
    from vlmdata_train.convert.restore import restore

    data = write_data(tmp_path / "data")
    recipe = tiny_recipe(data, tmp_path / "out", tokenizer={"vocabulary": 300})
    result = run_training(recipe)
    moved = tmp_path / "elsewhere"
    shutil.move(result.checkpoint, moved)
    shutil.rmtree(tmp_path / "out")  # a checkpoint needs no other files
    model, _ = restore(moved, "cpu")
    saved = weights(moved)
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items() if name in saved)
    batch, _ = next(iter(open_feed.feed_of(recipe, model, data, RANKS)))
    assert torch.isfinite(model.logits(batch)).all()


@pytest.mark.parametrize("name", ["state.json", "model-00000.safetensors", "optimizer-00000.safetensors"])
def test_a_damaged_checkpoint_is_reported_in_one_line(tmp_path, name):
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", steps=1)
    file = run_training(recipe).checkpoint / name
    os.truncate(file, 20)
    with pytest.raises(RecipeError, match=rf"{file} is damaged .*\. Remove {file.parent}"):
        run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "out", steps=2))


def test_a_training_stopped_by_hand_reports_it_in_one_line(tmp_path):
    tree = {"model": MODEL, "data": write_data(tmp_path / "data"), "out": str(tmp_path / "out"), "steps": 10**6}
    tree["logs"] = {"every": 1, "tensorboard": False}
    (tmp_path / "r.yaml").write_text(json.dumps(tree))
    command = [sys.executable, "-u", "-m", "vlmdata_train", "instruct", str(tmp_path / "r.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "loss" in line:
            process.send_signal(signal.SIGINT)
            break
    output = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in output
    assert output.splitlines()[-1] == "vlmdata train: stopped; run the same command again to resume from the last checkpoint"
