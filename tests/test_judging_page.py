"""The recipes of docs/judging.md are valid, and the page names the axes and limits of the code."""

import re
from pathlib import Path

import pytest
import yaml

from vlmdata.recipe import parse
from vlmdata.steps.judge import AXES
from vlmdata.steps.preference_pairs import PreferencePairs
from vlmdata.steps.vqa_score import PROMPT

PAGE = (Path(__file__).parent.parent / "docs" / "judging.md").read_text()
RECIPES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_a_recipe_of_the_page_has_no_mistake(number):
    recipe = {"source": {"type": "files", "path": "photos"}, **RECIPES[number]}
    for step in parse(recipe).steps:
        step.check()


def test_the_page_names_the_axes_the_prompt_and_the_limits_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", PAGE, re.M)
    assert [name for name, _ in rows] == list(AXES)
    assert f"`{PROMPT}`" in PAGE
    defaults = PreferencePairs()
    assert f"preference_pairs: {{min_gap: {defaults.min_gap:g}, pairs: {defaults.pairs}}}" in PAGE
