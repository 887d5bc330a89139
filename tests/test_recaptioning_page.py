"""Each recipe of docs/recaptioning.md runs, with a generator of the tests and a tiny CLIP in place of published weights."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.generation.colours import NAME
from tests.steps.test_recaption import facts_of, recipe_of
from vlmdata import run
from vlmdata.demo.recipe import HERE
from vlmdata.generation.captions import MOST_CHARS
from vlmdata.steps.recaption import Recaption

PAGE = (Path(__file__).parent.parent / "docs" / "recaptioning.md").read_text()
RECIPES = [yaml.safe_load(block)["steps"] for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
ORIGINS = [
    ["recaption"],
    ["recaption", "fuse_captions"],
    ["short", "edited", *["rewrite_text"] * 4],
    ["recaption"],
    ["recaption"],
]


def replaced(step: Any, log: str) -> Any:
    """Return a step of a recipe with what this machine has: a generator of the tests, and the demo's CLIP."""
    if isinstance(step, str):
        return step
    ((name, parameters),) = step.items()
    if "generator" in parameters:
        parameters = {**parameters, "generator": {NAME: {"log": log}}}
    if name == "clip_score":
        parameters = {**parameters, "model": f"local-dir:{HERE / 'clip'}", "min_score": -1}
    return {name: parameters}


@pytest.mark.whole
@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_a_recipe_of_the_page_writes_captions_with_these_origins(tmp_path, monkeypatch, number):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    steps = [replaced(step, f"{tmp_path}/log") for step in RECIPES[number] if step != "download"]
    assert run(recipe_of(tmp_path, steps), tmp_path / "out", local=True)["kept"] == 4
    assert facts_of(tmp_path / "out")["the red one"]["origins"] == ORIGINS[number]


def test_the_limits_that_the_page_names_are_the_defaults():
    assert f"more than {MOST_CHARS:,} characters" in PAGE
    for name in ("max_repeats", "max_words", "image_side"):
        assert f"`{name}: {getattr(Recaption, name)}`" in PAGE
