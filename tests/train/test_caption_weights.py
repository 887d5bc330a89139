"""A training run draws captions by the weights in its recipe, and resumes only with the same weights."""

import functools
import itertools
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from bench.inputs.tars import jpeg, write_tar
from tests.train.runs import made_model, tiny_recipe, weights
from tests.train.shards import caption_samples, drawing
from vlmdata.step import RecipeError
from vlmdata_train.data import open_feed
from vlmdata_train.data.left_out import count_left_out
from vlmdata_train.data.read_document import caption_origins, read_document
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.answers import make_questions
from vlmdata_train.loop.loop import run_training
from vlmdata_train.recipe_file import parse

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PHOTO = jpeg(drawing("blue", "circle"))
WEIGHTS = {"raw": 0.2, "recaption": 0.5, "synthetic": 0.3}
OTHERS = ["of the source", "r " * 9, "r", "t " * 20]
ORIGINS = [None, "recaption", "recaption", "translate"]
SHARES = {"main": 0.1, "of the source": 0.1, "r " * 9: 0.25, "r": 0.25, "t " * 20: 0.3}
PACKED_OR_NOT = pytest.mark.parametrize("batches", [{"tokens": 192}, {"pack": False, "samples": 3}], ids=["packed", "padded"])
whole = pytest.mark.whole


@functools.cache
def model():
    recipe = tiny_recipe("unused", "unused")
    return made_model(recipe, recipe.model, Ranks(0, 1, CPU))


def sample(key, caption="main", **facts):
    return {"__key__": key, "jpg": PHOTO, "txt": caption.encode(), "json": json.dumps(facts).encode()}


def write(folder, count=40):
    """Write samples with five captions each and return the folder's path."""
    made = [sample(f"{number}", alternatives=OTHERS, origins=ORIGINS) for number in range(count)]
    write_tar(folder / "0.tar", made)
    return str(folder)


def feed(data, *, captions=None, epochs=1, **changes):
    recipe = tiny_recipe(data, "unused", **changes)
    return open_feed.feed_of(recipe, model(), data, Ranks(0, 1, CPU), seed=3, epochs=epochs, captions=captions)


def drawn(made, is_packed):
    """Return the captions of all samples of a feed's batches, and check that the loader knew their lengths."""
    found = []
    for batch, _ in made:
        for n in range(len(batch.keys)):
            own = batch.labels[batch.segment_ids == n + 1] if is_packed else batch.labels[n]
            found.append(model().tokenizer.decode(own[own != -100], skip_special_tokens=True).strip())
    return found


@whole
@PACKED_OR_NOT
def test_batches_hold_captions_as_often_as_their_weights_say(tmp_path, batches):
    made = feed(write(tmp_path), captions=WEIGHTS, epochs=10, batches={**batches, "sample_tokens": 96})
    found = drawn(made, "tokens" in batches)
    assert len(found) == 400
    for caption, share in SHARES.items():
        count = found.count(caption.strip())
        assert abs(count - 400 * share) <= 4 * math.sqrt(400 * share * (1 - share)), (caption, count)


@whole
def test_packs_are_as_full_as_the_measured_lengths_say(tmp_path):
    for captions in (WEIGHTS, {"translate": 1}, None):
        made = feed(write(tmp_path / "data"), captions=captions, batches={"tokens": 192, "sample_tokens": 96})
        plan = made.plan
        for number, (batch, _) in enumerate(made):
            pack = plan.at(torch.tensor([number]).numpy())
            measured = plan.lengths[0].at(pack.rows, pack.seeds).tolist()
            held = [int((batch.segment_ids == n + 1).sum()) for n in range(len(batch.keys))]
            assert held == measured and not made.skipped


@whole
def test_only_captions_that_can_be_drawn_decide_whether_a_sample_is_left_out(tmp_path):
    made = [
        sample("a", "main", alternatives=[""], origins=["recaption"]),
        sample("b", "main", alternatives=["r"], origins=["recaption"]),
        sample("c", "", alternatives=["r"], origins=["recaption"]),
        sample("d", " ", alternatives=[""], origins=["recaption"]),
    ]
    write_tar(tmp_path / "0.tar", made)
    batches = {"tokens": 192, "sample_tokens": 96}
    for captions in (WEIGHTS, {"recaption": 1}, {"raw": 1}):
        opened = feed(str(tmp_path), captions=captions, epochs=8, batches=batches)
        found = count_left_out(opened.plan)
        assert (found.samples, found.used, found.reasons) == (4, 3, {"no_text": 1})
        assert len(drawn(opened, True)) == 24


def test_other_kinds_of_samples_draw_no_caption():
    turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A cat."}]
    talk = {"__key__": "a", "jpg": PHOTO, "json": json.dumps({"conversations": turns}).encode(), "__seed__": 5}
    assert read_document(talk, WEIGHTS) == read_document(talk)
    page = {"texts": ["a", None], "metadata": [None, {"file": "0.jpg"}], "images": [None, None], "alternatives": [["b"], None]}
    made = {"__key__": "a", "0.jpg": PHOTO, "json": json.dumps(page).encode(), "__seed__": 5}
    assert read_document(made, WEIGHTS) == read_document(made) and caption_origins(page, made) == [None]


def test_a_caption_that_is_not_utf8_is_unreadable_for_every_draw():
    broken = {**sample("a", alternatives=["b"], origins=["x"]), "txt": b"\xff"}
    assert caption_origins({"alternatives": ["b"], "origins": ["x"]}, broken) == ["x"]
    with pytest.raises(UnicodeDecodeError):
        read_document(broken, WEIGHTS)


@whole
def test_held_out_samples_of_the_data_use_the_weights_and_other_data_do_not(tmp_path):
    data, ranks = write(tmp_path / "data", 60), Ranks(0, 1, CPU)
    of_steps = {"r", ("r " * 9).strip(), ("t " * 20).strip()}
    for held, is_weighted in (({"fraction": 0.5}, True), ({"path": write(tmp_path / "other", 60)}, False)):
        recipe = tiny_recipe(data, "unused", captions={"synthetic": 1}, held_out={**held, "answers": 20})
        train, evaluation = open_feed.make_feeds(recipe, model(), ranks)
        assert set(drawn(itertools.islice(train, 10), True)) == of_steps
        assert (set(drawn(evaluation, True)) == of_steps) == is_weighted
        questions = open_feed.held_out_questions(recipe, evaluation)
        truths = {truth.strip() for _, truth in make_questions(evaluation.reading, questions)}
        assert len(questions) == 20 and (truths <= of_steps) == is_weighted


@whole
def test_a_run_with_weights_resumes_to_the_weights_of_an_unbroken_run(tmp_path):
    data = write(tmp_path / "data", 30)
    changes = {"captions": WEIGHTS, "stage": "align"}
    unbroken = run_training(tiny_recipe(data, tmp_path / "whole", **changes))
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoints/step_00000006")
    torch.manual_seed(12345)
    resumed = run_training(tiny_recipe(data, tmp_path / "broken", **{**changes, "captions": dict(reversed(WEIGHTS.items()))}))
    assert len(resumed.losses) == 3 and resumed.losses == unbroken.losses[3:]
    wanted, got = weights(unbroken.checkpoint), weights(resumed.checkpoint)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    for captions in (None, {**WEIGHTS, "raw": 0.3}):
        with pytest.raises(RecipeError, match="holds a run with a different `captions`"):
            run_training(tiny_recipe(data, tmp_path / "whole", **{**changes, "captions": captions}))


@whole
def test_a_run_of_a_version_without_weights_resumes(tmp_path):
    write_tar(tmp_path / "data/0.tar", caption_samples(20))
    checkpoint = run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "run", steps=3)).checkpoint
    saved = json.loads((checkpoint / "recipe.json").read_text())
    (checkpoint / "recipe.json").write_text(json.dumps({name: value for name, value in saved.items() if name != "captions"}))
    assert run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "run", steps=6)).steps == 6


def test_the_recipe_in_the_documentation_is_valid():
    page = (ROOT / "docs/training.md").read_text()
    (block,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "captions: {raw" in block)
    assert parse(yaml.safe_load(block)).captions == {"raw": 0.2, "recaption": 0.5, "synthetic": 0.3}
