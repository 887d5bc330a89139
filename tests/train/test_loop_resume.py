"""An interrupted run resumes with the weights of an uninterrupted one, bit for bit."""

import dataclasses
import shutil

import pytest
import torch

from bench.inputs.tars import write_tar
from tests.train.runs import tiny_recipe, weights, write_data
from tests.train.shards import conversation_samples
from vlmdata.step import RecipeError
from vlmdata_train.loop.loop import run_training

pytestmark = pytest.mark.whole

LORA = {"encoder": {"frozen": True}, "language": {"lora": {"rank": 2, "alpha": 4, "dropout": 0.3}}}


@pytest.mark.parametrize(
    "changes",
    [{}, {"parts": LORA}, {"speed": {"precision": "bf16"}}, {"batches": {"pack": False, "samples": 4, "accumulate": 2}}],
    ids=["plain", "lora with dropout", "bf16", "padded, two micro-batches"],
)
def test_a_run_stopped_after_k_steps_resumes_to_the_weights_of_an_unbroken_run(tmp_path, changes):
    resumed_like_unbroken(tmp_path, changes)


def resumed_like_unbroken(folder, changes):
    """Check that a run of six steps that is stopped after three resumes to the weights of an unbroken run."""
    data = write_data(folder / "data", captions=30, conversations=10)
    whole = run_training(tiny_recipe(data, folder / "whole", **changes))
    # A kill after step 3 leaves the run's folder with its first checkpoint only.
    shutil.copytree(folder / "whole", folder / "broken")
    shutil.rmtree(folder / "broken/checkpoints/step_00000006")
    torch.manual_seed(12345)  # whatever else happened in this process
    resumed = run_training(tiny_recipe(data, folder / "broken", **changes))
    assert len(resumed.losses) == 3 and resumed.losses == whole.losses[3:]
    wanted, got = weights(whole.checkpoint), weights(resumed.checkpoint)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_finished_run_that_is_repeated_does_nothing(tmp_path):
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", steps=2)
    first = run_training(recipe)
    before = {path: path.stat().st_mtime_ns for path in first.checkpoint.iterdir()}
    again = run_training(recipe)
    assert again.losses == [] and again.checkpoint == first.checkpoint
    assert before == {path: path.stat().st_mtime_ns for path in first.checkpoint.iterdir()}


def test_another_recipe_in_the_same_folder_is_refused_before_any_work(tmp_path):
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", steps=2)
    run_training(recipe)
    with pytest.raises(RecipeError, match="a different `lr`"):
        run_training(dataclasses.replace(recipe, lr=0.5))


def test_a_run_whose_samples_have_changed_is_refused(tmp_path):
    data = write_data(tmp_path / "data", captions=40)
    run_training(tiny_recipe(data, tmp_path / "out", steps=2))
    with pytest.raises(RecipeError, match=r"held_out\.fraction: .* were packed with a different value"):
        run_training(tiny_recipe(data, tmp_path / "out", steps=4, held_out={"fraction": 0.2}))
    write_tar(tmp_path / "data/00002.tar", conversation_samples(5))
    with pytest.raises(RecipeError, match=r"data: .* has changed since the run in .* was saved"):
        run_training(tiny_recipe(data, tmp_path / "out", steps=4))
    (tmp_path / "data/00002.tar").unlink()
    assert run_training(tiny_recipe(data, tmp_path / "out", steps=4)).steps == 4


def test_a_run_of_one_epoch_sees_every_sample_once(tmp_path):
    data = write_data(tmp_path / "data", captions=40)
    result = run_training(tiny_recipe(data, tmp_path / "out", steps=None, epochs=1))
    from vlmdata_train.convert.checkpoint import read_saved

    assert read_saved(result.checkpoint).facts["samples"] == 40


def test_a_run_whose_data_end_inside_a_step_is_still_evaluated_and_saved(tmp_path, capsys):
    data = write_data(tmp_path / "data", captions=40)
    batches = {"pack": False, "samples": 4, "sample_tokens": 96, "accumulate": 4}  # ten batches, which are two and a half steps
    changes = {"epochs": 1, "batches": batches, "checkpoints": {"every": 100}, "held_out": {"path": data, "every": 100}}
    first = run_training(tiny_recipe(data, tmp_path / "out", steps=None, **changes))
    assert first.checkpoint == tmp_path / "out/checkpoints/step_00000002" and first.held_out is not None
    before = {path: path.stat().st_mtime_ns for path in first.checkpoint.iterdir()}
    capsys.readouterr()
    again = run_training(tiny_recipe(data, tmp_path / "out", steps=None, **changes))
    assert again.losses == [] and "held-out" not in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in first.checkpoint.iterdir()}
    # A second epoch begins with the rest of the first, so 80 samples are five steps.
    assert run_training(tiny_recipe(data, tmp_path / "out", steps=None, **{**changes, "epochs": 2})).steps == 5


def test_too_little_data_for_one_step_is_reported(tmp_path):
    data = write_data(tmp_path / "data", captions=8)
    batches = {"pack": False, "samples": 4, "sample_tokens": 96, "accumulate": 4}
    with pytest.raises(RecipeError, match="a step takes 4 batches on each of 1 rank, but the data has only 2 in all"):
        run_training(tiny_recipe(data, tmp_path / "out", steps=None, epochs=1, batches=batches))
