"""Runs with rules for some weights of a part: what changes, what is logged, resume, start, export, and two ranks."""

import json
from fnmatch import fnmatchcase

import pytest
import torch

from tests.train.runs import MODEL, made_model, tiny_recipe, weights, write_data
from tests.train.test_loop_ranks import torchrun, write_recipe
from tests.train.test_loop_resume import resumed_like_unbroken
from tests.train.tiny import pack, sample
from vlmdata.step import RecipeError
from vlmdata_train.convert.restore import restore
from vlmdata_train.distributed import Ranks
from vlmdata_train.export import export
from vlmdata_train.loop import setup
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.lora import merge_lora
from vlmdata_train.recipe_file import parse

pytestmark = pytest.mark.whole

CPU = Ranks(0, 1, torch.device("cpu"))
Q_FORMER = {"q_former": {"queries": 4, "width": 32, "layers": 2, "heads": 2, "mlp_width": 32}}
MIXED = {
    "encoder": {"frozen": True, "rules": [{"weights": "norms", "frozen": False, "lr": 0.02}]},
    "abstractor": {"frozen": True, "rules": [{"weights": "project", "frozen": False}]},
    "language": {
        "lora": {"rank": 2, "alpha": 4, "dropout": 0.3, "layers": ["*.q_proj", "*.v_proj"]},
        "rules": [{"weights": "norms", "frozen": False}, {"weights": "model.layers.0", "lr": 0.001}],
    },
}
TRAINED = ["encoder.*.ln_*", "abstractor.project.*", "language.*norm.weight", "language.*.lora_*"]
CHANGES = {"model": {**MODEL, "abstractor": Q_FORMER}, "parts": MIXED, "optimizer": {"warmup": 0}}


def is_trained(name: str, parameters: set[str]) -> bool:
    """Return whether MIXED trains a weight; weights that the tower does not use are buffers."""
    return name in parameters and any(fnmatchcase(name, pattern) for pattern in TRAINED)


def test_weights_of_rules_change_and_all_others_stay_bit_equal(tmp_path, capsys):
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", steps=2, **CHANGES)
    setup.seed_everything(recipe.seed, CPU)
    model = made_model(recipe, recipe.model, CPU)
    parameters = {name for name, _ in model.named_parameters()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = weights(run_training(recipe).checkpoint)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    wanted = {name for name in after if is_trained(name, parameters)}
    # LoRA's B starts at 0, so its A changes only in the second step.
    assert changed == wanted and len([name for name in wanted if "lora_" in name]) == 2 * 2 * 2
    shown = [line.split(" M trained, ")[1] for line in capsys.readouterr().err.splitlines() if " M trained, " in line]
    assert shown == [
        "frozen", "norms: lr 0.02", "frozen", "project: lr 0.01", "lr 0.01, LoRA", "norms: lr 0.01", "model.layers.0: lr 0.001",
    ]  # fmt: skip
    record = next(r for r in map(json.loads, (tmp_path / "out/log.jsonl").read_text().splitlines()) if r["kind"] == "train")
    rate = record["lr"]["language"]
    assert record["lr"] == pytest.approx(
        {"encoder/norms": 2 * rate, "abstractor": rate, "language": rate, "language/model.layers.0": 0.1 * rate}
    )


def test_a_run_with_rules_and_lora_resumes_bit_for_bit(tmp_path):
    resumed_like_unbroken(tmp_path, CHANGES)


def test_a_checkpoint_with_rules_and_lora_is_restored_started_from_and_exported(tmp_path):
    data = write_data(tmp_path / "data")
    made = run_training(tiny_recipe(data, tmp_path / "out", steps=2, parts=MIXED | {"abstractor": {}}))
    model, recipe = restore(made.checkpoint, "cpu")
    assert recipe.parts["language"].rules[1].lr == 0.001
    batch = pack(model, [sample(model, 12, 2, 1)])
    with torch.no_grad():
        before = model.logits(batch)
        assert merge_lora(model) == 2 * 2
        torch.testing.assert_close(model.logits(batch), before, rtol=1e-4, atol=1e-5)
    export(made.checkpoint, tmp_path / "exported")
    start = parse({
        "stage": "instruct", "start": str(made.checkpoint), "data": data, "out": str(tmp_path / "next"), "steps": 1,
        "parts": {"encoder": {"frozen": True}, "language": {"frozen": True, "rules": [{"weights": "norms", "frozen": False}]}},
    })  # fmt: skip
    begun = made_model(start, start.model, CPU).eval()
    with torch.no_grad():
        torch.testing.assert_close(begun.logits(batch), before, rtol=1e-4, atol=1e-5)
    trained = [name for name, weight in begun.language.named_parameters() if weight.requires_grad]
    assert len(trained) == 5 and all(name.endswith("norm.weight") for name in trained)


def test_a_checkpoint_from_before_there_were_rules_resumes_and_starts(tmp_path):
    data = write_data(tmp_path / "data")
    parts = {"encoder": {"frozen": True}, "language": {"lora": {"rank": 2, "alpha": 4}}}
    made = run_training(tiny_recipe(data, tmp_path / "out", steps=2, parts=parts))
    file = made.checkpoint / "recipe.json"
    tree = json.loads(file.read_text())
    for part in tree["parts"].values():
        del part["rules"]
    del tree["parts"]["language"]["lora"]["layers"]
    file.write_text(json.dumps(tree))
    start = tiny_recipe(data, tmp_path / "next", start=str(made.checkpoint))
    assert made_model(start, setup.model_parts(start, tmp_path / "next", CPU), CPU) is not None
    assert restore(made.checkpoint, "cpu")[1].parts["language"].lora.layers is None
    assert run_training(tiny_recipe(data, tmp_path / "out", steps=3, parts=parts)).steps == 3


def test_another_order_of_rules_is_another_run(tmp_path):
    data = write_data(tmp_path / "data")
    rules = [{"weights": "norms", "frozen": True}, {"weights": "*.mlp", "lr": 0.1}]
    run_training(tiny_recipe(data, tmp_path / "out", steps=1, parts={"language": {"rules": rules}}))
    with pytest.raises(RecipeError, match="a different `parts`"):
        run_training(tiny_recipe(data, tmp_path / "out", steps=1, parts={"language": {"rules": rules[::-1]}}))


def test_a_mistaken_pattern_stops_a_run_before_it_reads_data(tmp_path):
    parts = {"language": {"rules": [{"weights": "q_proj", "lr": 0.1}]}}
    with pytest.raises(
        RecipeError, match=r"^parts, language: rules, 1: no weight matches 'q_proj'\. Did you mean '\*\.q_proj'"
    ):
        run_training(tiny_recipe(str(tmp_path / "no data"), tmp_path / "out", parts=parts))


def test_rules_that_train_weights_of_frozen_parts_are_not_an_all_frozen_recipe(tmp_path):
    names = ("encoder", "abstractor", "fusion", "language")
    frozen = {name: {"frozen": True} for name in names}
    with pytest.raises(RecipeError, match="every part is frozen"):
        tiny_recipe("D", tmp_path, parts=frozen)
    rules = [{"weights": "norms", "frozen": False}]
    assert tiny_recipe("D", tmp_path, parts={**frozen, "encoder": {"frozen": True, "rules": rules}}).parts["encoder"].is_trained
    every = [{"weights": "*", "frozen": True}]
    recipe = tiny_recipe("D", tmp_path, parts={name: {"rules": every} for name in names if name != "fusion"})
    with pytest.raises(RecipeError, match="nothing would be trained"):
        made_model(recipe, recipe.model, CPU)


@pytest.mark.slow  # each rank is a process that must first import torch
def test_weights_of_rules_train_equally_under_ddp_and_fsdp(tmp_path):
    """Blocks that FSDP shards hold frozen weights, norms that are trained fully, and updates of LoRA."""
    data = write_data(tmp_path / "data", captions=40, conversations=20)
    parts = json.loads(json.dumps(MIXED))
    parts["language"]["lora"]["dropout"] = 0.0
    for how in ("ddp", "fsdp"):
        path = write_recipe(tmp_path / f"{how}.yaml", data, tmp_path / how)
        path.write_text(json.dumps({**json.loads(path.read_text()), **CHANGES, "parts": parts}))
        torchrun(2, path, f"speed.parallel={how}", "steps=2", "speed.recompute=all")
    ddp, fsdp = (weights(tmp_path / how / "checkpoints/step_00000002") for how in ("ddp", "fsdp"))
    assert ddp.keys() == fsdp.keys()
    recipe = tiny_recipe(data, tmp_path / "none", **{**CHANGES, "parts": parts})
    setup.seed_everything(recipe.seed, CPU)
    model = made_model(recipe, recipe.model, CPU)
    parameters, before = {name for name, _ in model.named_parameters()}, model.state_dict()
    for name in ddp:
        assert torch.allclose(ddp[name], fsdp[name], atol=2e-5), name
        assert torch.equal(before[name], fsdp[name]) != is_trained(name, parameters), name
