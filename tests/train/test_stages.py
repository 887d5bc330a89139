"""The stages of a recipe train one after another, and each starts from the last checkpoint of the stage before it."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from tests.train.runs import MODEL, weights, write_data
from tests.train.test_loop_ranks import start
from vlmdata.shipped import PIPELINES
from vlmdata.step import RecipeError
from vlmdata_train.__main__ import main
from vlmdata_train.model.parts import check_name
from vlmdata_train.recipe import build_recipe
from vlmdata_train.recipe_file import load
from vlmdata_train.stages import device_of, load_stages

FROZEN = {"frozen": True}
THREE = {
    "align": {"stage": "align", "parts": {"encoder": FROZEN, "language": FROZEN}},
    "all": {"stage": "instruct", "lr": 1e-3},
    "language": {"stage": "instruct", "parts": {"encoder": FROZEN, "abstractor": FROZEN}},
}


def write(tmp_path: Path, stages: Any, **common: Any) -> Path:
    """Write a recipe of stages on tiny data and return its path."""
    data = write_data(tmp_path / "data", captions=8, conversations=12)
    tree = {
        "model": MODEL, "data": data, "out": str(tmp_path / "runs"), "steps": 2, "lr": 1e-2,
        "batches": {"tokens": 192, "sample_tokens": 96}, "logs": {"tensorboard": False}, "stages": stages, **common,
    }  # fmt: skip
    file = tmp_path / "stages.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


@pytest.mark.whole
def test_each_stage_trains_its_parts_from_the_checkpoint_before(tmp_path, capsys):
    file = write(tmp_path, THREE)
    assert main(["stages", str(file)]) == 0
    printed = capsys.readouterr()
    last = tmp_path / "runs/3-language/checkpoints/step_00000002"
    assert printed.out.strip() == str(last)
    assert [line for line in printed.err.splitlines() if line.startswith("stage ")] == [
        "stage 1 of 3: align", "stage 2 of 3: all", "stage 3 of 3: language",
    ]  # fmt: skip
    of_stages = [weights(next((tmp_path / "runs" / name / "checkpoints").iterdir())) for name in ("1-align", "2-all")]
    of_stages.append(weights(last))
    changed = [
        {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
        for before, after in itertools.pairwise(of_stages)
    ]
    assert changed == [{"encoder", "abstractor", "language"}, {"language"}]
    facts = json.loads((last / "recipe.json").read_text())
    assert facts["start"] == str(tmp_path / "runs/2-all/checkpoints/step_00000002")


@pytest.mark.whole
def test_the_same_command_resumes_in_the_stage_that_is_not_finished(tmp_path, capsys):
    file = write(tmp_path, {name: THREE[name] for name in ("align", "all")})
    assert main(["stages", str(file), "--set", "stages.all.checkpoints.every=1"]) == 0
    finished = tmp_path / "runs/2-all/checkpoints/step_00000002"
    before = weights(finished)
    (finished / "state.json").unlink()
    finished.rename(tmp_path / "gone")
    capsys.readouterr()
    assert main(["stages", str(file), "--set", "stages.all.checkpoints.every=1"]) == 0
    assert "resumed from" in capsys.readouterr().err
    after = weights(finished)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (None, "`stages` must be a mapping"),
        ({"align": None}, "stages, align: the changes of a stage must be a mapping, not None"),
        ({"align": {"stage": "align", "lrr": 1}}, "stages, align: Recipe has no parameter 'lrr'"),
        ({**THREE, "all": {"stage": "instruct", "start": "x"}}, "stages, all: `start` cannot be set for a stage"),
        ({**THREE, "all": {"stage": "instruct", "data": "missing"}}, "data: "),
    ],
)
def test_a_mistake_in_any_stage_is_reported_before_the_first_begins(tmp_path, stages, message):
    with pytest.raises(RecipeError, match=message):
        load_stages(str(write(tmp_path, stages)))
    assert not (tmp_path / "runs").exists()


def test_a_recipe_of_stages_is_refused_as_a_single_run(tmp_path):
    with pytest.raises(RecipeError, match=r"is a recipe of several stages\. Use `vlmdata train stages"):
        load(write(tmp_path, THREE))


@pytest.mark.whole
def test_all_stages_use_one_process_group(tmp_path, monkeypatch):
    groups, start_group = [], dist.init_process_group
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **more: groups.append(start_group(*args, **more)))
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    file = write(tmp_path, {name: THREE[name] for name in ("align", "all")}, speed={"device": "cpu"})
    assert main(["stages", str(file)]) == 0
    assert len(groups) == 1 and not dist.is_initialized()


def test_stages_on_different_devices_share_a_group_for_both(tmp_path):
    stages = {"align": {"stage": "align", "speed": {"device": "cpu"}}, "all": {"stage": "instruct"}}
    assert device_of(load_stages(str(write(tmp_path, stages)))) == "auto"


@pytest.mark.whole
@pytest.mark.slow
def test_two_ranks_train_all_stages_in_one_command(tmp_path):
    stages = {name: THREE[name] for name in ("align", "all")}
    file = write(tmp_path, stages, speed={"device": "cpu", "parallel": "fsdp"})
    done = start(2, "vlmdata_train", "stages", str(file))
    assert done.returncode == 0, done.stderr[-12000:]
    assert done.stdout.strip() == str(tmp_path / "runs/2-all/checkpoints/step_00000002")


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("stages/*.yaml")), ids=lambda path: path.stem)
def test_the_stages_of_each_shipped_recipe_are_valid(path):
    tree = yaml.safe_load(path.read_text())
    stages = tree.pop("stages")
    for name, changes in stages.items():
        recipe = build_recipe({**tree, **changes}, name)
        for kind in ("encoder", "language", "abstractor", "writing"):
            check_name(kind, getattr(recipe.model, kind))
    assert path.read_text().startswith("#") and len(stages) >= 2
