"""The facts of docs/visual_prompts.md are those of the code, and its counts and questions are what the step makes."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from PIL import Image

from tests.generation.labelled_source import photo_rows
from tests.parts import open_part
from tests.real_data import real_data
from tests.rows import table
from vlmdata.generation.mark_questions import FORMS
from vlmdata.grounding.marked_boxes import IN_FRONT, MIN_SIDE, SAME_PLACE
from vlmdata.grounding.place_marks import KINDS, THINNEST
from vlmdata.images.mark_colours import COLOURS, CONTRAST, NAMED, NEAR, RARE, SEEN
from vlmdata.recipe import parse
from vlmdata.steps.visual_prompt import LABEL_WORDS, MOST_BOXES, VisualPrompt

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "visual_prompts.md").read_text()
FLOWING = " ".join(PAGE.split())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the photos with boxes as the step leaves them."""
    folder = real_data("A_captioned/coco_free_licence")
    part = open_part(tmp_path_factory.mktemp("marks"))
    rows = [row for row in photo_rows(folder) if row["images"][0]["boxes"]]
    for row in rows:
        body = row["images"][0].pop("data")
        row["images"][0].update(blob=part.blob.name, offset=part.blob.add(body), size=len(body))
        row["roles"] = None
    marked: pa.Table = VisualPrompt().run(table(rows), part)
    found: list[dict[str, Any]] = marked.to_pylist()
    return found


def own(row: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(row["extra"]).get("visual_prompt", {})
    return about


def test_the_recipe_of_the_page_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    recipe = parse(yaml.safe_load(block))
    step = recipe.steps[-1]
    assert isinstance(step, VisualPrompt) and recipe.shards.layout == "documents"
    step.check()
    step.check_steps(recipe.steps[:-1])


def test_kinds_forms_colours_and_limits_are_those_of_the_code() -> None:
    kinds = re.findall(r"^\| `(\w+)` \| an? ", PAGE, re.M)
    forms = re.findall(r"^\| `(\w+)` \| \"", PAGE, re.M)
    assert tuple(kinds) == KINDS and tuple(forms) == FORMS
    *names, last = COLOURS
    assert f"{', '.join(names)} and {last}" in PAGE
    assert (RARE, NEAR, CONTRAST, SEEN, NAMED) == (0.002, 40.0, 35.0, 0.8, 0.95)
    for words in ("0.2% of the picture's pixels", "a distance below 40", "four fifths", "at least 35", "95% of the line"):
        assert words in FLOWING
    assert (IN_FRONT, SAME_PLACE) == (3.0, 0.5) and "three times as large" in FLOWING and "by 0.5 or more" in FLOWING
    assert f"less than {MIN_SIDE} pixels, too short for a line of {THINNEST} pixels" in FLOWING
    assert f"more than {LABEL_WORDS} words" in FLOWING and f"more than {MOST_BOXES})" in FLOWING


def test_the_counts_are_those_of_the_photos(done: list[dict[str, Any]]) -> None:
    stated = {name: int(count) for name, count in re.findall(r"^\| ([^|]+) \| (\d+) \|$", PAGE, re.M)}
    words = ("no mark", "one mark", "two marks", "three marks")
    counts = Counter(words[len(own(row).get("marks", []))] for row in done)
    for row in done:
        if len(marks := own(row).get("marks", [])) == 1:
            counts[f"single marks: `{marks[0]['kind']}`"] += 1
        counts.update(f"questions: `{form}`" for form in own(row).get("kinds", []))
        known = json.loads(next(one for one in row["visual_prompt.marks"] if one))
        for reason, count in known["refused"].items():
            counts[f"boxes refused: `{reason}`"] += count
    assert dict(counts) == stated
    assert f"{sum(len(row['images'][0]['boxes']) for row in done)} boxes" in PAGE and f"On {len(done)} photos" in PAGE


def test_the_questions_of_the_pictures_are_those_of_the_step(done: list[dict[str, Any]]) -> None:
    rows = {json.loads(row["extra"])["file_name"]: row for row in done}
    stated = re.findall(r"^\| (\d+), \[Flickr .*?\)\s*\| (.*?) \| (.*?) \|$", PAGE, re.M)
    assert len(stated) == 3
    for number, question, answer in stated:
        row = rows[f"{int(number):012d}.jpg"]
        assert [text["text"] for text in row["texts"] if text and not text["drop"]] == [question, answer]
        assert json.loads(row["extra"])["licence"] == "Attribution License"
    assert '"place": [0.1371, 0.249, 0.6582, 0.9731], "colour": "purple"' in PAGE
    assert own(rows["000000377575.jpg"])["marks"][0]["place"] == [0.1371, 0.249, 0.6582, 0.9731]


def test_the_picture_of_the_page_is_small() -> None:
    assert (DOCS / "visual_prompts.jpg").stat().st_size <= 60_000
    with Image.open(DOCS / "visual_prompts.jpg") as picture:
        assert picture.format == "JPEG"
