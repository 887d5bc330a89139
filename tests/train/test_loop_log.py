"""A run logs its numbers, and reports, skips or stops at a broken loss."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.train.runs import MODEL, tiny_recipe, weights, write_data
from vlmdata.step import RecipeError
from vlmdata_train.loop.broken_loss import SpikeWatch
from vlmdata_train.loop.flops import flops_per_token
from vlmdata_train.loop.log import Log, check_logs
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.meter import Meter
from vlmdata_train.loop.train_step import ModelWithLoss
from vlmdata_train.recipe import Logs

pytestmark = pytest.mark.whole


def records(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_its_numbers_as_json_lines_and_to_tensorboard(tmp_path):
    data = write_data(tmp_path / "chats", captions=0, conversations=40)
    logs = {"every": 2, "tensorboard": True}
    run_training(tiny_recipe(data, tmp_path / "out", logs=logs, steps=4, held_out={"fraction": 0.2, "every": 4}))
    logged = records(tmp_path / "out")
    assert [(r["kind"], r["step"]) for r in logged] == [
        ("train", 2),
        ("held_out", 3),
        ("train", 4),
        ("held_out", 4),
    ]  # saved at step 3
    wanted = {"loss", "loss_of", "tokens_per_s", "padding", "data_wait", "model_tflops", "memory_gib", "norm", "lr", "samples"}
    assert wanted <= set(logged[0]) and set(logged[0]["loss_of"]) == {"chats"}
    assert logged[0]["loss_of"]["chats"] == pytest.approx(logged[0]["loss"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out/tensorboard")).Reload()
    shown = [e.value for e in events.Scalars("train/loss_of/chats")]  # in float32
    assert shown == pytest.approx([r["loss"] for r in logged if r["kind"] == "train"], rel=1e-6)


def test_the_loss_of_each_source_is_logged(tmp_path):
    captions, chats = write_data(tmp_path / "captions"), write_data(tmp_path / "chats", captions=0, conversations=40)
    run_training(tiny_recipe({captions: 0.5, chats: 0.5}, tmp_path / "out"))  # type: ignore[arg-type]
    assert set(records(tmp_path / "out")[0]["loss_of"]) == {"captions", "chats"}


def break_one(monkeypatch, value: float, at_call: int):
    """Make the loss of the first sample of one micro-batch `value`."""
    original = ModelWithLoss.forward
    calls = []

    def forward(self, micro):
        total, each = original(self, micro)
        calls.append(micro.batch.keys[0])
        if len(calls) == at_call:
            each = each.clone()
            each[0] = value
            total = total * value
        return total, each

    monkeypatch.setattr(ModelWithLoss, "forward", forward)
    return calls


def test_a_nan_loss_stops_the_run_and_the_tar_and_key_are_reported(tmp_path, monkeypatch):
    calls = break_one(monkeypatch, float("nan"), 3)
    data = write_data(tmp_path / "data")
    with pytest.raises(FloatingPointError, match=r"step 3: .* is broken \(nan\)") as caught:
        run_training(tiny_recipe(data, tmp_path / "out"))
    worst = str(caught.value).partition("highest loss: ")[2]
    assert worst.startswith(calls[2]) and ".tar" in worst.split()[0]
    assert records(tmp_path / "out")[-1]["worst"][0] == calls[2]


def test_a_run_that_skips_a_nan_loss_continues_with_finite_weights(tmp_path, monkeypatch):
    break_one(monkeypatch, float("nan"), 3)
    data = write_data(tmp_path / "data")
    result = run_training(tiny_recipe(data, tmp_path / "out", logs={"every": 2, "on_nan": "skip", "tensorboard": False}))
    assert result.steps == 6 and result.losses[2] != result.losses[2]
    assert all(torch.isfinite(w).all() for w in weights(result.checkpoint).values())


@pytest.mark.parametrize("rule", ["tell", "skip", "stop"])
def test_a_loss_spike_is_reported_skipped_or_stops_the_run_and_names_its_samples(tmp_path, monkeypatch, rule):
    calls = break_one(monkeypatch, 1e5, 23)  # twenty losses are needed before a loss is judged
    logs = {"every": 100, "on_spike": rule, "tensorboard": False}
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", steps=24, lr=1e-4, logs=logs,
                         checkpoints={"every": 1, "keep": 99})  # fmt: skip
    if rule == "stop":
        with pytest.raises(FloatingPointError, match=r"step 23: .* is broken \(spike\)"):
            run_training(recipe)
    else:
        assert run_training(recipe).steps == 24
    (broken,) = [r for r in records(tmp_path / "out") if r["kind"] == "broken"]
    assert (broken["step"], broken["verdict"], broken["rule"], broken["worst"][0]) == (23, "spike", rule, calls[22])
    saved = [tmp_path / f"out/checkpoints/step_000000{n}" for n in (22, 23)]
    assert saved[1].exists() == (rule != "stop")
    if rule != "stop":
        before, after = map(weights, saved)
        assert all(torch.equal(before[name], after[name]) for name in before) == (rule == "skip")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wandb_gets_the_same_numbers(tmp_path):
    """The run has its own process, because wandb writes its records when the process ends."""
    pytest.importorskip("wandb")
    tree = {"model": MODEL, "data": write_data(tmp_path / "data"), "out": str(tmp_path / "out"), "steps": 2,
            "logs": {"every": 2, "tensorboard": False, "wandb": "vlmdata-test"}}  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(tree))
    command = [sys.executable, "-m", "vlmdata_train", "instruct", str(tmp_path / "r.yaml")]
    waits = {"WANDB__SERVICE_WAIT": "600", "WANDB_INIT_TIMEOUT": "600"}  # seconds; 30 and 90 are too few on a busy machine
    places = {f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}
    own = {**os.environ, **waits, **places, "WANDB_MODE": "offline"}
    subprocess.run(command, env=own, check=True, capture_output=True, timeout=800)
    (file,) = (tmp_path / "out/wandb").glob("offline-run-*/run-*.wandb")
    text = file.read_bytes()
    assert b"train/tokens_per_s" in text and b"train/loss_of/data" in text


def test_a_logger_that_is_not_installed_is_reported_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"logs.wandb: the package wandb is not installed"):
        check_logs(Logs(tensorboard=False, wandb="project"))


def test_a_spike_is_judged_against_the_losses_before_it():
    watch = SpikeWatch(6.0)
    assert watch.verdict(9.0) is None  # no earlier loss to compare with
    for i in range(30):
        loss = 2.0 + 0.1 * (i % 2)
        assert watch.verdict(loss) is None
        watch.accept(loss)
    assert watch.verdict(2.3) is None
    watch.accept(2.3)
    # skipped losses are not remembered
    assert watch.verdict(4.0) == "spike" and watch.verdict(4.0) == "spike" and watch.refused == 2
    assert watch.verdict(float("inf")) == "nan"
    spikes = 0
    for _ in range(50):  # when spikes are accepted, the loss of the new data becomes the expected one
        spikes += watch.verdict(4.0) is not None
        watch.accept(4.0)
    assert 0 < spikes < 25


def test_skipping_too_many_steps_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata_train.loop.loop.MAX_REFUSED", 3)
    original = ModelWithLoss.forward
    monkeypatch.setattr(
        ModelWithLoss, "forward", lambda self, micro: (original(self, micro)[0] * float("nan"), original(self, micro)[1])
    )
    logs = {"on_nan": "skip", "tensorboard": False}
    with pytest.raises(FloatingPointError, match="3 steps in a row were skipped"):
        run_training(tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", logs=logs))


def test_each_weight_costs_six_four_or_two_flops_per_token():
    parts = {name: nn.Linear(10, 10, bias=False) for name in ("encoder", "abstractor", "fusion", "language")}
    align = flops_per_token(parts, {"encoder": False, "abstractor": True, "fusion": False, "language": False})
    assert align == {"encoder": 200, "abstractor": 600, "fusion": 400, "language": 400}
    instruct = flops_per_token(parts, {"encoder": False, "abstractor": True, "fusion": True, "language": True})
    assert instruct["language"] == 600 and instruct["encoder"] == 200


def test_a_meter_weighs_sources_by_their_tokens():
    meter = Meter(tokens=90, padded_tokens=100)
    meter.add_losses({"a": (30.0, 10), "b": (10.0, 10)})
    values = meter.values(1, None)
    assert values["loss"] == 2.0 and values["loss_of"] == {"a": 3.0, "b": 1.0} and values["padding"] == 0.1


def test_a_pipe_gets_a_line_if_thirty_seconds_passed_without_one(tmp_path, capsys):
    now = [100.0]
    log = Log(tmp_path, Logs(tensorboard=False), active=True, recipe={}, clock=lambda: now[0])
    for seconds, text in ((29, "early"), (1, "due"), (29, "early again")):
        now[0] += seconds
        log.say_if_due(text)
    log.say("said")
    now[0] += 29
    log.say_if_due("early too")
    log.close()
    assert capsys.readouterr().err == "due\nsaid\n"
