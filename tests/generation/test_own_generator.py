"""A user's own generator and step: answers are stored one by one, and no answer is asked for twice."""

import json
import sys

import numpy as np
import pytest

from tests.engine.site import picture
from vlmdata import run
from vlmdata.errors import RecipeError, WorkFailed
from vlmdata.images.encode import encode
from vlmdata.recipe import as_read, load, modules

MODULE = '''
import pathlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pyarrow as pa

from vlmdata.errors import GeneratorStopped
from vlmdata.generation.asking_step import AskingStep
from vlmdata.generator import Answer, Generator
from vlmdata.row import drop_rows
import numpy as np


@dataclass(frozen=True, kw_only=True)
class Backwards(Generator):
    """Writes the prompt backwards, and notes each prompt in a file. It stops after `stop_after` prompts of a run."""

    needs: ClassVar = ("endpoint",)
    log: str
    stop_after: int = 1000

    def identity(self):
        return "backwards"

    def open(self, record):
        return Opened(self, record)


class Opened:
    facts = {"model": "backwards"}

    def __init__(self, options, record):
        self.options, self.record = options, record

    def answer(self, prompts, sampling, done):
        for number, prompt in enumerate(prompts):
            asked = self.record.read().get("asked", 0)
            if asked == self.options.stop_after:
                raise GeneratorStopped("backwards: the budget is spent; the same command goes on")
            self.record.write({"asked": asked + 1})
            with open(self.options.log, "a") as file:
                file.write(f"{prompt.text} {prompt.seed} {len(prompt.images)}\\n")
            done(number, Answer(prompt.text[::-1], "stop", None, 3, len(prompt.text)))

    def close(self):
        pathlib.Path(self.options.log + ".closed").touch()


@dataclass(frozen=True, kw_only=True)
class Mirror(AskingStep):
    """Asks for the caption backwards and drops captions that are shorter than `min_chars`."""

    reads: ClassVar = ("images", "texts")
    prompt: str = "mirror "
    min_chars: int = 0

    def wording(self):
        return {"prompt": self.prompt}

    def questions(self, rows, context):
        found = []
        for row in rows.select(["key", "images", "texts"]).to_pylist():
            image = row["images"][0]
            place = image["blob"], image["offset"], image["size"]
            read = lambda place=place: context.image_bytes(*place)
            text = self.prompt + row["texts"][1]["text"]
            found.append([self.question(row["key"], 0, text, images=[(image["sha256"], read)], side=64)])
        return found

    def decide(self, rows):
        answers = rows[self.column("answers")].to_pylist()
        lengths = np.array([len(one[0]["text"] or "") if one else np.nan for one in answers], float)
        return drop_rows(rows, lengths < self.min_chars, self.name, reason="min_chars")
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.jpg").write_bytes(picture(number))
        (folder / f"{number:02d}.txt").write_text(f"caption {number}")
    whole = encode(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "png")
    (folder / "99.png").write_bytes(whole[:500] + bytes(500) + whole[1000:])
    (folder / "99.txt").write_text("a broken picture")
    (tmp_path / "own_writer.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:" + ":".join(sys.path))
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"source: {{type: files, path: {folder}}}\npart_rows: 5\n"
        f"steps: [own_writer.Mirror: {{generator: {{own_writer.Backwards: {{log: {tmp_path}/log}}}}}}]\n"
    )
    yield file
    sys.modules.pop("own_writer", None)


def asked(recipe) -> list[str]:
    log = recipe.parent / "log"
    return sorted(log.read_text().splitlines()) if log.exists() else []


@pytest.mark.whole
def test_a_run_asks_once_for_each_row_and_never_again(recipe, tmp_path):
    out = tmp_path / "out"
    manifest = run(recipe, out, local=True, workers=2)
    assert manifest["kept"] == 13
    lines = asked(recipe)
    assert len(lines) == 12 and len({line.split()[3] for line in lines}) == 12  # the broken picture is not sent; own seeds
    assert manifest["models"]["own_writer"][0]["prompts"] == {"prompt": "mirror "}
    run(recipe, out, local=True, overrides={"own_writer.min_chars": 16})
    assert asked(recipe) == lines
    run(recipe, out, local=True, overrides={"own_writer.prompt": "turn "})
    assert len(asked(recipe)) == 24
    assert not list((out / "work" / "answers").glob("*/*"))


@pytest.mark.whole
def test_a_stopped_generator_ends_the_run_in_one_line_and_resumes(recipe, tmp_path):
    out = tmp_path / "out"
    place = "own_writer.generator"
    choice = {"own_writer.Backwards": {"log": f"{tmp_path}/log", "stop_after": 5}}
    for number in (5, 10):
        with pytest.raises(WorkFailed) as found:
            run(recipe, out, local=True, workers=2, overrides={place: choice})
        assert str(found.value) == "backwards: the budget is spent; the same command goes on"
        assert len(asked(recipe)) == number
    run(recipe, out, local=True, workers=2, overrides={place: choice})
    lines = asked(recipe)
    assert len(lines) == len(set(lines)) == 12


@pytest.mark.whole
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('self.record.read().get("asked", 0)', '{}["asked"]', ["failed:\n", 'asked = {}["asked"]\n', "\nKeyError: 'asked'"]),
        ("return Opened(self, record)", "return 1 / 0", ["failed:\n", "\nZeroDivisionError: division by zero"]),
        (
            "done(number, Answer(",
            "number and done(number, Answer(",
            ["gave no answer to 1 of", "must call `done` for each prompt"],
        ),
    ],
)
def test_a_mistake_in_the_code_of_a_generator_is_a_few_lines(recipe, tmp_path, old, new, words):
    assert old in MODULE
    (tmp_path / "own_writer.py").write_text(MODULE.replace(old, new))
    with pytest.raises(WorkFailed) as found:
        run(recipe, tmp_path / "out", local=True, workers=1)
    text = str(found.value)
    assert text.startswith("the generator (own_writer.Backwards) ") and len(text.splitlines()) <= 5
    assert all(one in text for one in words)


@pytest.mark.whole
@pytest.mark.parametrize("damage", ["{", "[1]", "[" * 100_000])
def test_damaged_facts_about_a_model_are_one_line(recipe, tmp_path, damage):
    out = tmp_path / "out"
    run(recipe, out, local=True, workers=1)
    note = next((out / "work" / "notes").iterdir())
    note.write_text(damage)
    with pytest.raises(RecipeError) as found:
        run(recipe, out, local=True, workers=1, overrides={"own_writer.min_chars": 16})
    assert (
        str(found.value) == f"{note} is damaged: it is not a JSON object. Remove the folder work/ and build the dataset again"
    )


def test_the_module_of_a_generator_counts_as_code_of_the_recipe(recipe):
    tree, _ = as_read(recipe)
    assert modules(tree) == ["own_writer"]
    tree["steps"][0]["own_writer.Mirror"]["generator"] = {"other_place.Writer": {}}
    assert modules(tree) == ["other_place", "own_writer"]


@pytest.mark.parametrize("value", ["nowhere", {"hf": {}, "openai": {}}, 3, {"own_writer.Backwards": {"lag": 1}}])
def test_a_wrong_generator_is_one_line(recipe, value):
    with pytest.raises(RecipeError) as found:
        load(recipe, {"own_writer.generator": value})
    assert len(str(found.value).splitlines()) == 1 and "generator" in str(found.value)


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ({"openai": {"model": "m", "url": "http://host/v1", "key": "sk-SECRET"}}, ["'key'"]),
        ({"openai": {"model": "m", "base_url": "http://host/v1", "api_key": "sk-SECRET"}}, ["'base_url'", "'api_key'"]),
        ({"model": "m", "key": "sk-SECRET"}, ["['model', 'key']"]),
    ],
)
def test_each_mistake_in_a_generator_has_its_place_and_no_value(recipe, value, places):
    with pytest.raises(RecipeError) as found:
        load(recipe, {"own_writer.generator": value})
    lines = str(found.value).splitlines()
    assert len(lines) == len(places) and "SECRET" not in str(found.value)
    for line, place in zip(lines, places, strict=True):
        assert place in line and "step 1: Mirror.generator: " in line


def test_a_described_recipe_has_the_defaults_of_its_generator(recipe):
    found = load(recipe).describe()["steps"][0]["own_writer.Mirror"]["generator"]
    assert found == {"own_writer.Backwards": {"log": str(recipe.parent / "log"), "stop_after": 1000}}
    assert json.loads(json.dumps(found)) == found
