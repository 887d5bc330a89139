"""The facts of docs/grounding.md are those of the code: the turns and all forms of its picture, its recipe and its defaults."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tests.generation.labelled_source import photo_rows
from tests.real_data import real_data
from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.questions import NONE
from vlmdata.grounding.scene import GROUP
from vlmdata.grounding.spans import Grounding, read_grounding
from vlmdata.grounding.stored_boxes import stored_boxes
from vlmdata.grounding.write import FORMS, plain_text, read_text, write_text
from vlmdata.recipe import parse
from vlmdata.row import conform
from vlmdata.steps.ground import QUESTIONS, Ground

PAGE = (Path(__file__).parent.parent / "docs" / "grounding.md").read_text()
CAPTION = re.search(r'first caption, "(.*?)"', PAGE)[1]  # type: ignore[index]
BOXES = [(label, json.loads(box)) for label, box in re.findall(r"^([a-z ]+): (\[[\d., ]+\])$", PAGE, re.M)]
IMAGE = {"width": 640, "height": 426, "boxes": [box for _, box in BOXES], "box_labels": [label for label, _ in BOXES]}


def turns(rows: pa.Table) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    kept = [
        [text for text in row["texts"] if text and text["drop"] is None] if row["roles"] else [] for row in rows.to_pylist()
    ]
    return [pair for some in kept for pair in zip(some[::2], some[1::2], strict=True)]


def of_the_page() -> list[tuple[dict[str, Any], dict[str, Any], Grounding]]:
    """Return the question, the answer and the answer's grounding of each turn of the page's picture."""
    row = {"key": f"{0:024x}", "images": [IMAGE, None], "texts": [None, {"text": CAPTION}]}
    done = turns(Ground(names="coco").run(conform(pa.Table.from_pylist([row]))))
    found = [(question, answer, read_grounding(answer["grounding"], answer["text"])) for question, answer in done]
    return [(question, answer, grounding) for question, answer, grounding in found if grounding is not None]


def test_the_recipe_of_the_page_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    recipe = parse(yaml.safe_load(block))
    assert isinstance(recipe.steps[-1], Ground) and recipe.shards.layout == "documents"
    recipe.steps[-1].check()


def test_the_turns_of_the_picture_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.partition("## The step")[0], re.M)
    assert rows == [(grounding.task, question["text"], answer["text"]) for question, answer, grounding in of_the_page()]
    shown = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.S)[1])  # type: ignore[index]
    assert shown == of_the_page()[0][2].as_json()


@pytest.mark.parametrize("form", FORMS)
def test_the_texts_of_each_form_are_those_of_the_page(form: str) -> None:
    block = re.search(rf"### `{form}`\n\n.*?````\n(.*?)\n````", PAGE, re.S)[1]  # type: ignore[index]
    places = tuple(None if one is None else one.place for one in stored_boxes(IMAGE) or ())
    shown = {0: Shown(places, Frame(640, 426))}
    texts: list[str] = []
    tasks: set[str] = set()
    for question, answer, grounding in of_the_page():
        if grounding.task in tasks:
            continue
        tasks.add(grounding.task)
        texts += [question] if grounding.task != "mention" else []
        texts += [answer] if grounding.task != "describe" else []
    written = [write_text(one["text"], read_grounding(one["grounding"], one["text"]), shown, form) for one in texts]
    assert block == "\n".join(plain_text(pieces, form) for pieces in written if pieces is not None) and len(written) == 6


def test_every_form_has_its_place_on_the_page() -> None:
    assert set(re.findall(r"^### `(\w+)`$", PAGE, re.M)) == set(FORMS)


def test_the_example_of_the_reader_is_what_it_returns() -> None:
    code, said = re.search(r"\n(read_text\(.*?\)\.found)\n# (.*?)\n```", PAGE, re.S).groups()  # type: ignore[union-attr]
    assert repr(eval(code, {"read_text": read_text})) == said


def test_defaults_are_those_of_the_code() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Ground)}
    for name in ("max_names", "absent", "min_visible"):
        assert f"`{name}` ({defaults[name]}" in PAGE
    assert f"`min_area` ({defaults['min_area']} of the picture)" in PAGE and NONE in PAGE and GROUP == 3
    assert list(QUESTIONS.values()) == [1, 1, 2, 1] and "(1, 1, 2 and 1)" in PAGE


def test_the_numbers_of_turns_of_the_photos_are_those_of_the_page() -> None:
    rows = photo_rows(real_data("A_captioned/coco_free_licence"))
    table = conform(pa.Table.from_pylist([{**row, "key": f"{number:024x}"} for number, row in enumerate(rows)]))
    done = Ground(names="coco", require=False).run(table)
    found = [read_grounding(answer["grounding"], answer["text"]) for _, answer in turns(done)]
    counts = Counter(one.task for one in found if one)
    absent = sum(answer["text"] == NONE for _, answer in turns(done))
    phrases = sum(len(one.spans) for one in found if one)
    assert sum(roles is not None for roles in done["roles"].to_pylist()) == 51 and len(rows) == 111
    assert (
        f"{counts['mention']} `mention`, {counts['detect']} `detect` ({absent} of them for absent names),\n"
        f"{counts['refer']} `refer` and {counts['describe']} `describe`, with {phrases} phrases"
    ) in PAGE
