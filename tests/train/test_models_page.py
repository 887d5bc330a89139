"""The tables of docs/models.md agree with each other, with the folders of parts and with the families of published models."""

import re
from pathlib import Path

import pytest

from vlmdata_train.convert.family import all_families
from vlmdata_train.model.parts import FOLDERS, part_names

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()


def section(title: str) -> str:
    """Return a section of the page without those after it. `title` has the signs of its level."""
    level = title.split()[0]
    return re.split(rf"\n#{{1,{len(level)}}} ", PAGE.split(f"\n{title}\n")[1])[0]


def table(text: str) -> list[list[str]]:
    """Return the rows of the first table of a text, without its heads."""
    first = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert first is not None
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in first[0].splitlines()[2:]]


SYSTEMS = {name: [recipe, difference, form] for name, recipe, difference, form in table(section("## Published systems"))}
FAMILIES = table(section("## To and from transformers"))


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_section_on_parts_names_every_part(kind: str) -> None:
    assert [name for name in part_names(kind) if f"`{name}`" not in section("## Parts")] == []


def test_the_table_of_systems_and_the_list_of_their_parts_have_the_same_names_in_order() -> None:
    assert re.findall(r"^- \*\*(.+?)\*\*", section("### Parts and comparisons"), re.MULTILINE) == list(SYSTEMS)


def test_a_system_has_a_difference_exactly_if_its_published_models_are_exported() -> None:
    for name, (_, difference, form) in SYSTEMS.items():
        assert bool(re.fullmatch(r"[\de.-]+, [\de.-]+", difference)) == form.endswith("out"), name


def test_the_table_of_families_names_the_systems_that_are_exported_in_their_order() -> None:
    exported = [name for name, (_, _, form) in SYSTEMS.items() if form.endswith("out")]
    cells = [cell for cell, *_ in FAMILIES if "original files" not in cell]
    assert [name for cell in cells for name in cell.split("; " if ";" in cell else ", ")] == exported


def test_the_table_of_families_has_the_type_of_every_configuration_that_can_be_read() -> None:
    types = {name for _, cell, _ in FAMILIES for name in re.findall(r"`(.+?)`", cell)}
    assert types == {form for family in all_families() for form in family.forms}
