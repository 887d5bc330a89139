"""Every parameter of a recipe says what it does, and each step and source has an example that is a valid recipe."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml

from vlmdata import catalog
from vlmdata.parameters import Doc, Parameter, described, in_words, parameters
from vlmdata.recipe import Shards, parse
from vlmdata.step import Step

STEPS = [pytest.param(catalog.find("steps", name), id=name) for name in catalog.names("steps")]
SOURCES = [pytest.param(catalog.find("sources", name), id=name) for name in catalog.names("sources")]
SOURCE = {"type": "url_list", "path": "urls.parquet"}


@pytest.mark.parametrize("cls", [*STEPS, *SOURCES, pytest.param(Shards, id="shards")])
def test_each_parameter_says_what_it_does_in_which_unit_and_why_by_default(cls):
    for one in parameters(cls):
        assert one.doc.text[:1] in {one.doc.text[:1].upper(), "`"} and one.doc.text.endswith("."), (
            f"{one.name}: write sentences"
        )
        if "number" in one.kind:
            assert one.doc.unit, f"{one.name}: state the unit or the range of the number"
            if not one.is_required and one.default not in (None, 0, {}):
                assert one.doc.source, f"{one.name}: say where {one.default} comes from, or write vlmdata's choice"


@pytest.mark.parametrize("cls", STEPS)
def test_the_example_of_a_step_is_valid_in_a_recipe(cls):
    steps = parse({"source": SOURCE, "steps": yaml.safe_load(cls.example)}).steps
    assert cls in map(type, steps)


@pytest.mark.parametrize("cls", SOURCES)
def test_the_example_of_a_source_is_valid_in_a_recipe(cls):
    assert type(parse(yaml.safe_load(cls.example)).source) is cls


@pytest.mark.parametrize("cls", [*STEPS, *SOURCES])
def test_an_example_shows_parameters_if_there_are_any(cls):
    example = yaml.safe_load(cls.example)
    shown = [*example["source"]][1:] if isinstance(example, dict) else example[-1]
    assert parameters(cls)[0].name == "label" or not isinstance(shown, str)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "whole number"),
        (str | list[str], "text or list of texts"),
        (float | None, "number or null"),
        (tuple[str, ...], "list of texts"),
        (Literal["a", "b", "c"], '"a", "b" or "c"'),
        (list[Literal["a", "b"]], 'list of "a" or "b"'),
        (dict[str, dict[str, float]], "mapping of texts to mappings of texts to numbers"),
        (Literal["all"] | list[str] | dict[str, str], '"all" or list of texts or mapping of texts to texts'),
        (Annotated[bool, Doc("Whether.")], "true or false"),
        (list, "list"),
        (Any, "any value"),
    ],
)
def test_a_type_is_written_in_words(kind, words):
    assert in_words(kind) == words


@dataclass(frozen=True, kw_only=True)
class Limits:
    low: Annotated[float, Doc("A lower value is rejected.", unit="pixels", source="a paper")]


@dataclass(frozen=True, kw_only=True)
class Mine(Limits, Step):
    reads: ClassVar = ("texts",)
    low: float = 0.5
    words: tuple[str, ...] = ("a",)
    high: float


def test_a_step_without_docs_lists_its_parameters_and_keeps_inherited_docs():
    found = parameters(Mine)
    assert found[0] == Parameter("high", "number", Doc(""), True)
    assert found[1] == Parameter(
        "low", "number", Doc("A lower value is rejected.", unit="pixels", source="a paper"), False, 0.5
    )
    assert found[2].default == ["a"]
    assert [one.name for one in found] == ["high", "low", "words", "label"]


def test_an_editor_sees_the_text_the_unit_and_the_source_of_the_default():
    assert described(Doc("A limit.", unit="pixels", source="a paper")) == "A limit. Unit: pixels. Default from: a paper."
    assert described(Doc("A name.")) == "A name."
