"""`vlmdata steps`, docs/steps.md and the schema for editors show the same facts about every step and source."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest

from vlmdata import catalog, reference
from vlmdata.cli import main
from vlmdata.schema import recipe_schema
from vlmdata.step import RecipeError, Step

ROOT = Path(__file__).parent.parent
NAMES = [*catalog.names("sources"), *catalog.names("steps"), *catalog.names("generators")]


@dataclass(frozen=True, kw_only=True)
class Short(Step):
    """Reject short texts."""

    reads: ClassVar = ("texts",)
    least: int


def test_the_page_of_steps_is_generated():
    current = (ROOT / "docs" / "steps.md").read_text()
    assert current == reference.page(), "run: python -m vlmdata.reference > docs/steps.md"


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_fits_the_width_and_shows_every_parameter(name, width):
    cls = reference.find(name)
    text, _, example = reference.in_text(reference.facts(name, cls), width).partition("\nExample:\n")
    assert max(map(len, text.splitlines())) <= width and "typing" not in text
    shown = re.findall(r"^  (\w+)  ", text.partition("\nParameters:\n")[2], re.M)
    assert [one["name"] for one in reference.facts(name, cls)["parameters"]] == shown
    assert name in example


def test_a_parameter_shows_its_type_default_meaning_unit_and_source(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["steps", "image_size"]) == 0
    shown = """
  max_aspect  number, default 3.0
              An image with a greater ratio of long side to short side is
              rejected. Unit: ratio, 1 or more. Default from: DataComp's basic
              filter; OBELICS uses 2.
"""
    assert shown in capsys.readouterr().out


def test_the_facts_say_what_a_step_reads_writes_and_needs():
    known = reference.facts("clip_score", reference.find("clip_score"))
    assert known["reads"] == ["images", "texts"]
    assert known["writes"] == ["clip_score", "clip_score.text", "clip_score.embedding"]
    assert known["how"] == ["measures columns, which later runs use again", "loads a model", "uses a GPU if there is one"]
    assert reference.facts("min_scores", reference.find("min_scores"))["reads"][:2] == ["b32", "l14"]


def test_a_step_of_a_user_is_shown_without_docs_and_example():
    known = reference.facts("mine.Short", Short)
    assert "least  whole number, required" in reference.in_text(known, 80)
    assert (known["parameters"][0]["text"], known["example"], known["reads"]) == ("", "", ["texts"])


@pytest.mark.parametrize(("width", "longest"), [(None, 160), (80, 80)])
def test_the_list_has_one_aligned_line_for_each_name(width, longest):
    lines = reference.in_list(reference.every(), width).splitlines()
    rows = [line for line in lines if line.startswith("  ")]
    assert [line.split()[0] for line in rows] == NAMES
    assert len({re.match(r"  \w+ +", line).end() for line in rows}) == 1
    assert max(map(len, rows)) <= longest


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("clip_scores", "Did you mean 'clip_score'?"),
        ("url_lst", "Did you mean 'url_list'?"),
        ("phash", "Did you mean 'dedupe_phash'?"),
        ("language_", "Did you mean 'language'?"),
        ("pii", "Did you mean 'pii_drop' or 'pii_remove'?"),
        ("", "`vlmdata steps` lists all names"),
        ("#!", "`vlmdata steps` lists all names"),
        ("vlmdata.step.Missing", "cannot import the step, source or generator 'vlmdata.step.Missing'"),
        ("json.dumps", "'json.dumps' is neither a step nor a source nor a generator"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_names_in_one_line(name, advice):
    with pytest.raises(RecipeError) as caught:
        reference.find(name)
    assert advice in str(caught.value) and "\n" not in str(caught.value)


def test_json_of_one_and_of_all_is_the_data_of_the_page(capsys):
    assert main(["steps", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert every == reference.every()
    assert main(["steps", "split", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one == next(known for known in every["steps"] if known["name"] == "split")
    schema = json.loads((ROOT / "schemas" / "cli.json").read_text())
    jsonschema.validate(every, {**schema, "$ref": "#/$defs/steps_all"})
    jsonschema.validate(one, {**schema, "$ref": "#/$defs/steps_name"})


def test_the_schema_that_steps_prints_describes_every_parameter_for_editors(capsys):
    assert main(["steps", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == recipe_schema()
    for name, body in printed["$defs"].items():
        for parameter, facts in body["properties"].items():
            assert facts["description"], (name, parameter)
            assert parameter == "type" or "default" in facts or parameter in body["required"]
            for value in facts.get("examples", []):
                jsonschema.validate(value, {**facts, "$defs": printed["$defs"]})
    aspect = printed["$defs"]["step_image_size"]["properties"]["max_aspect"]
    assert aspect["description"].endswith("Unit: ratio, 1 or more. Default from: DataComp's basic filter; OBELICS uses 2.")
    assert (aspect["default"], aspect["examples"]) == (3.0, [3])
