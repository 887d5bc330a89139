"""The id of a step on disk does not depend on the path of its file, and no two steps share an id."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pytest

from tests.fixtures.own_step import Lines, Words
from vlmdata.engine.work.compile_recipe import compile_recipe
from vlmdata.recipe import Recipe, Shards
from vlmdata.step import Step, id_of
from vlmdata.steps.language import Language


@dataclass(frozen=True, kw_only=True)
class First(Step):
    """A step without a declared id, in a module with another step."""

    writes: ClassVar = {"": pa.int32()}


@dataclass(frozen=True, kw_only=True)
class Second(Step):
    """A second step of this kind with another name."""

    writes: ClassVar = {"": pa.int32()}


@dataclass(frozen=True, kw_only=True)
class Declared(Step):
    """A step with a declared id."""

    id: ClassVar = "ours.words"
    writes: ClassVar = {"": pa.int32()}


@dataclass(frozen=True, kw_only=True)
class OwnLanguage(Language):
    """A changed copy of a shipped step, whose measurements are not those of the original."""


def measure(step: Step) -> str | None:
    return compile_recipe(Recipe(Lines(path="x"), (step,), Shards(), 1000))[0].measure


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Language(), "vlmdata.steps.language"),
        (Words(), "tests.fixtures.own_step"),
        (Lines(path="x"), "tests.fixtures.own_step"),
        (Declared(), "ours.words"),
        (First(), f"{__name__}.First"),
        (OwnLanguage(), f"{__name__}.OwnLanguage"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_id_is_declared_or_else_the_module_of_the_user(part, expected):
    assert id_of(part) == expected


def test_two_steps_in_one_module_do_not_share_a_measurement():
    assert measure(First()) != measure(Second())
    assert measure(OwnLanguage()) != measure(Language())


def test_a_moved_file_keeps_its_measurement(monkeypatch):
    before = measure(Declared()), measure(Language())
    for cls in (Declared, Language):
        monkeypatch.setattr(cls, "__module__", "somewhere.else_now")
    assert (measure(Declared()), measure(Language())) == before
