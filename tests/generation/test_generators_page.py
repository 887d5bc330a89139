"""The generator that docs/generators.md shows works as the page says."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.steps.test_recaption import facts_of, recipe_of
from vlmdata import run
from vlmdata.errors import RecipeError
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.recipe import load

SECTION = (Path(__file__).parents[2] / "docs" / "generators.md").read_text().split("## Write your own\n")[1]
CODE, STEPS = (re.search(rf"```{kind}\n(.*?)```", SECTION, re.S).group(1) for kind in ("python", "yaml"))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "my_writer.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    yield recipe_of(tmp_path, yaml.safe_load(STEPS)["steps"])
    sys.modules.pop("my_writer", None)


@pytest.mark.whole
def test_the_generator_of_the_page_writes_captions(recipe, tmp_path):
    manifest = run(recipe, tmp_path / "out", local=True)
    assert manifest["generations"]["recaption"]["accepted"] == 4
    assert "sizes 1.0" in [facts.get("model") for facts in manifest["models"]["recaption"]]
    assert re.fullmatch(r"A picture of \d+ octets", facts_of(tmp_path / "out")["the red one"]["alternatives"][0])


def test_the_generator_of_the_page_says_that_it_has_no_probabilities(recipe):
    opened = load(recipe).steps[0].writer().open(None)
    found: dict[int, Answer] = {}
    opened.answer(
        iter([Prompt("?", (b"image",), choices=("yes", "no")), Prompt("?", (b"image",))]), Sampling(), found.__setitem__
    )
    assert [found[number].failure for number in (0, 1)] == ["no_probabilities", None]


def test_the_generator_of_the_page_checks_its_parameter(recipe):
    with pytest.raises(RecipeError, match=r"recaption\.generator\.my_writer\.Sizes\.unit is empty"):
        load(recipe, {"recaption.generator": {"my_writer.Sizes": {"unit": ""}}}).steps[0].check()
