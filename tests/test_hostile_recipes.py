"""A file that is no recipe, or that is made to waste time and memory, is answered in a few short lines."""

from pathlib import Path

import pytest

from vlmdata.cli import main
from vlmdata.errors import RecipeError
from vlmdata.read_yaml import read_yaml

LISTS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
BOMB = f"a0: &a0 [x, x, x]\n{LISTS}"  # three values, nine times in a list, eleven times over
KNOWN = "Known names: source, steps, shards, part_rows"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("use", ["source: *a11", "source: {type: url_list, path: *a11}", "shards: {<<: *a11}"])
def test_aliases_that_stand_for_billions_of_values_are_refused(recipe: Path, use: str) -> None:
    recipe.write_text(f"{BOMB}{use}\n")
    with pytest.raises(RecipeError, match=r"line 5, column 5: aliases repeat more than 10,000 values"):
        read_yaml(recipe)


def test_an_alias_inside_its_own_value_is_refused(recipe: Path) -> None:
    recipe.write_text("source: &a {type: url_list, path: *a}\n")
    with pytest.raises(RecipeError, match="line 1, column 9: an alias stands for a value that contains the alias"):
        read_yaml(recipe)


def test_aliases_and_long_lists_of_a_recipe_are_read(recipe: Path) -> None:
    words = [f"word {n}" for n in range(20_000)]
    recipe.write_text("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}\nwords:\n" + "".join(f"- {word}\n" for word in words))
    assert read_yaml(recipe) == {"a": {"b": 1}, "c": [{"b": 1}] * 2, "d": {"b": 1, "e": 2}, "words": words}


def test_unknown_keys_after_the_first_ten_are_counted(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text("source: {type: url_list, path: none.csv}\n" + "".join(f"key{n}: 1\n" for n in range(224)))
    assert main(["check", str(recipe)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[:10] == [f"vlmdata: {recipe}: a recipe has no key 'key{n}'. {KNOWN}" for n in range(10)]
    assert lines[10] == f"vlmdata: {recipe}: a recipe has no key 'key10', and 213 more"


def test_mistakes_after_the_first_thirty_are_counted(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(f"source: {{type: url_list, path: none.csv}}\nsteps: [{', '.join(f'no{n}' for n in range(99))}]\n")
    assert main(["run", str(recipe), "--out", str(recipe.parent / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 31 and lines[-1] == "vlmdata: and 70 more; correct these first"


def test_a_long_value_is_cut_in_a_message(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(f"source: {{type: url_list, path: none.csv}}\nsteps: [{{image_size: {{min_side: [{'1, ' * 9000}]}}}}]\n")
    assert main(["check", str(recipe)]) == 2
    assert max(map(len, capsys.readouterr().err.splitlines())) < 500
