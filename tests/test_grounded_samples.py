"""Boxes as fractions of the original, and the words that stand for them, stay right from rows to samples and back."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.exporting.made import IMAGE, caption, document, make_dataset
from tests.rows import table
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from tests.test_schemas import check
from vlmdata import run, stream
from vlmdata.engine.output.sample import samples
from vlmdata.engine.work.compile_recipe import inputs
from vlmdata.engine.work.fit import Fit
from vlmdata.grounding.spans import Grounding, Span, Task, plain_boxes, read_grounding
from vlmdata.grounding.stored_boxes import stored_boxes
from vlmdata.loader.stream import ReadOptions
from vlmdata.recipe import parse
from vlmdata.row import conform
from vlmdata.sources.webdataset import Webdataset
from vlmdata.steps.dedupe_exact import DedupeExact
from vlmdata.steps.pii_remove import PiiRemove

BOXES = [[0.0, 0.0, 2.0, 3.0], None, [4.0, 3.0, 8.0, 6.0]]
ORIGINAL = [[0.2, 0.25, 0.4, 0.75], [0.0, 0.0, 0.1, 0.1], [0.6, 0.75, 1.0, 1.0]]
VIEW = [0.2, 0.25, 1.0, 1.0]
STORED = {"url": "u", "blob": "b", "offset": 0, "size": 1, "format": "png", "width": 8, "height": 6, "boxes": BOXES}
PLACED = {"boxes": BOXES, "original_boxes": ORIGINAL, "view": VIEW}
DOG, CAT = (0.0, 0.0, 0.25, 0.5), (0.5, 0.5, 1.0, 1.0)
OLD = (0.3, 0.3, 0.4, 0.4)
NUMBERS = {0: DOG, 1: OLD, 2: CAT}


def grounded(
    *parts: str | tuple[str, int | None], image: int = 0, task: Task = "mention", numbers: dict[int, Any] = NUMBERS
) -> dict[str, Any]:
    """Return a text with its grounding. A part is plain text, or words and the number of their box, None for none."""
    text, spans = "", list[Span]()
    for part in parts:
        phrase, box = (part, -1) if isinstance(part, str) else part
        words = phrase if box is None or box == -1 else f"{phrase} {plain_boxes([numbers[box]])}".strip()
        if box != -1:
            place = len(text), len(text) + len(phrase), len(text) + len(words)
            spans.append(Span(*place, words, image, () if box is None else (box,)))
        text += words
    return {"text": text, "grounding": Grounding(task, tuple(spans)).dump()}


SENTENCE = grounded(("the dog", 0), " beside ", ("a cat", 2))


def facts_of(rows: pa.Table, layout: str) -> dict[str, Any]:
    (sample,) = samples(rows, layout, 0, 1)
    facts: dict[str, Any] = json.loads(dict(sample.members)["json"])
    check("sample", facts)
    return facts


def row_of(*parts: dict[str, Any] | str, roles: list[str] | None = None) -> pa.Table:
    """Return one row: mappings with `text` and strings are texts, other mappings are images."""
    said = [{"text": part} if isinstance(part, str) else part for part in parts]
    images = [None if "text" in part else {**STORED, **part} for part in said]
    return table([{"images": images, "texts": [part if "text" in part else None for part in said], "roles": roles}])


def words_in(facts: dict[str, Any], text: str, grounding: Any) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return the words, the image and the boxes of each span. All spans must be valid."""
    found = read_grounding(grounding, text)
    assert found is not None
    assert found.as_json() == grounding
    return [(text[span.start : span.phrase_end], span.image, span.boxes) for span in found.spans]


# -- samples


def test_a_pair_and_a_document_have_fractions_of_the_original_the_view_and_the_grounding() -> None:
    facts = facts_of(row_of(PLACED, SENTENCE), "captions")
    assert {name: facts[name] for name in PLACED} == PLACED
    assert facts["caption"] == SENTENCE["text"]
    assert facts["grounding"] == json.loads(SENTENCE["grounding"])
    facts = facts_of(row_of("a title", PLACED, grounded(("the dog", 0), image=1)), "documents")
    assert {name: facts["metadata"][1][name] for name in PLACED} == PLACED
    assert words_in(facts, facts["texts"][2], facts["grounding"][2]) == [("the dog", 1, (0,))]
    assert facts["grounding"][:2] == [None, None]


@pytest.mark.parametrize("image", [{}, {"original_boxes": [], "view": None}, {"boxes": [], "original_boxes": ORIGINAL}])
def test_what_is_not_known_is_left_out(image: dict[str, Any]) -> None:
    facts = facts_of(row_of(image, "a"), "captions")
    assert not {"original_boxes", "view", "grounding"} & facts.keys()


def test_numbers_in_a_text_follow_the_boxes_as_they_are_stored() -> None:
    text = grounded(("the dog", 0), ", ", ("a man", 1), " and ", ("a cat", 2), numbers={0: OLD, 1: OLD, 2: CAT})
    facts = facts_of(row_of(PLACED, text), "captions")
    assert facts["caption"] == f"the dog {plain_boxes([DOG])}, a man and a cat {plain_boxes([CAT])}"
    assert words_in(facts, facts["caption"], facts["grounding"]) == [("the dog", 0, (0,)), ("a cat", 0, (2,))]


def test_images_of_spans_are_positions_in_the_sample() -> None:
    rejected = {**PLACED, "drop": "image_size", "reason": "min_side"}
    rows = row_of(rejected, "x", PLACED, "y", grounded(("a cat", 2), image=2), grounded(("lost", 0), " dog", image=0))
    facts = facts_of(rows, "documents")
    assert facts["texts"] == ["x", None, f"y\n\na cat {plain_boxes([CAT])}\n\nlost dog"]
    assert words_in(facts, facts["texts"][2], facts["grounding"][2]) == [("a cat", 1, (2,))]
    pair = facts_of(row_of(rejected, PLACED, grounded(("a cat", 2), image=1)), "captions")
    assert words_in(pair, pair["caption"], pair["grounding"]) == [("a cat", 0, (2,))]


def test_a_span_follows_its_words_when_a_step_changes_the_text_before_it() -> None:
    text = grounded("ask a@example.org about ", ("the dog", 0), " or ", ("b@example.org", 2), numbers={0: OLD, 2: CAT})
    facts = facts_of(PiiRemove(mark="<pii>").run(row_of(PLACED, text)), "captions")
    assert facts["caption"] == f"ask <pii> about the dog {plain_boxes([DOG])} or <pii> {plain_boxes([CAT])}"
    assert words_in(facts, facts["caption"], facts["grounding"]) == [("the dog", 0, (0,))]


def test_a_span_of_words_that_changed_is_left_out() -> None:
    text = {**SENTENCE, "text": str(SENTENCE["text"]).replace("the dog", "The dog")}
    facts = facts_of(row_of(PLACED, text), "captions")
    assert words_in(facts, facts["caption"], facts["grounding"]) == [("a cat", 0, (2,))]


def test_another_grounding_of_a_text_is_another_input_and_none_is_the_input_of_before() -> None:
    rows = [row_of(PLACED, one) for one in (SENTENCE, {**SENTENCE, "grounding": None}, str(SENTENCE["text"]))]
    found, none, plain = (inputs(one, ("texts",))[0] for one in rows)
    assert found != none == plain


def test_a_grounded_text_that_becomes_an_alternative_loses_its_numbers() -> None:
    rows = pa.concat_tables([row_of({**PLACED, "sha256": "a" * 64}, one) for one in ("plain", SENTENCE)])
    rows = rows.set_column(0, "key", pa.array(["a", "b"]))
    kept = DedupeExact(by="sha256", merge_captions=True).run(rows)
    assert kept["texts"][0].as_py()[1]["alternatives"] == ["the dog beside a cat"]


# -- texts that mean nothing without their boxes

QUESTION, ANSWER = grounded("Where is ", ("the man", None), "?", task="refer"), grounded(("", 1), task="refer")
CHAT = ["user", "user", "assistant", "user", "assistant"]


def test_a_question_whose_answer_lost_its_box_is_dropped_with_it() -> None:
    rows = Fit(pairs_only=False).run(
        row_of(PLACED, QUESTION, ANSWER, "And the cat?", grounded(("", 2), task="refer"), roles=CHAT)
    )
    assert [text and text["reason"] for text in rows["texts"][0].as_py()] == [None, "lost_box", "lost_box", None, None]
    facts = facts_of(rows, "documents")
    assert facts["texts"] == [None, "And the cat?", plain_boxes([CAT])]
    assert words_in(facts, facts["texts"][2], facts["grounding"][2]) == [("", 0, (2,))]


def test_a_row_whose_only_question_lost_its_box_is_dropped() -> None:
    rows = Fit(pairs_only=False).run(
        row_of(PLACED, grounded("What is in ", ("", 1), "?", task="describe"), "A man.", roles=CHAT[:3])
    )
    assert (rows["drop"][0].as_py(), rows["reason"][0].as_py()) == ("shards", "lost_box")


def test_a_text_that_only_mentions_a_lost_object_stays() -> None:
    rows = Fit().run(row_of(PLACED, grounded(("the man", 1), " sleeps")))
    assert rows["drop"].to_pylist() == [None]
    assert facts_of(rows, "captions")["caption"] == "the man sleeps"


# -- reading


def stated(**change: Any) -> dict[str, Any]:
    found = {**PLACED, "caption": SENTENCE["text"], "grounding": json.loads(SENTENCE["grounding"]), **change}
    return {name: value for name, value in found.items() if value is not None}


def pair_in(folder: Path, **facts: Any) -> dict[str, Any]:
    """Return the row of a caption pair whose JSON has these facts."""
    key, members = caption(0)
    text = facts.get("caption", "picture 0")
    written = {**json.loads(members["json"]), **facts}
    members = {**members, "json": json.dumps(written).encode(), "txt": text.encode()}
    make_dataset(folder, [(key, members)], layout="captions")
    (row,) = read_all(Webdataset(path=str(folder))).to_pylist()
    assert row["drop"] is None
    return dict(row)


def document_in(folder: Path, grounding: Any, **placed: Any) -> dict[str, Any]:
    made = document(0, ["x", IMAGE, str(SENTENCE["text"])], grounding=grounding)
    facts = json.loads(made[1]["json"])
    facts["metadata"][1] |= placed
    made[1]["json"] = json.dumps(facts).encode()
    make_dataset(folder, [made], layout="documents")
    (row,) = read_all(Webdataset(path=str(folder))).to_pylist()
    assert row["drop"] is None
    return dict(row)


SAID = [None, None, json.loads(grounded(("the dog", 0), " beside ", ("a cat", 2), image=1)["grounding"])]


def test_a_pair_and_a_document_are_read_as_they_were_written(tmp_path: Path) -> None:
    row = pair_in(tmp_path / "pair", **stated())
    assert {name: row["images"][0][name] for name in PLACED} == PLACED
    assert json.loads(row["texts"][1]["grounding"]) == stated()["grounding"]
    assert json.loads(row["extra"]).keys() == {"source_key"}
    row = document_in(tmp_path / "document", SAID, **PLACED)
    assert {name: row["images"][1][name] for name in PLACED} == PLACED
    assert [text and json.loads(text["grounding"] or "null") for text in row["texts"]] == SAID
    assert json.loads(row["extra"]).keys() == {"source_key"}


NAN = float("nan")
WRONG_BOXES = [5, "a", {}, [], ORIGINAL[:2], [*ORIGINAL, None], [[0, 0, 1], None, None], [[0.5, 0, 0.5, 1], None, None]]
WRONG_BOXES += [[[0, 0, 1, 1.5], None, None], [[NAN, 0, 1, 1], None, None], [[0, 0, 1, "1"], None, None], [True, None, None]]
WRONG_VIEWS = ["front", 5, [], {}, [0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1], [NAN, 0, 1, 1], [0, 0, 10**400, 1], [0, 0, 1e9, 1]]
WRONG_VIEWS += [[None] * 4, [0, 0, 1, True]]
WRONG = [*(("original_boxes", value) for value in WRONG_BOXES), *(("view", value) for value in WRONG_VIEWS)]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_geometry_that_cannot_be_right_is_kept_as_columns_and_not_used(tmp_path: Path, name: str, value: Any) -> None:
    """If one of the two fields is wrong, the other one alone would be wrong too."""
    row = pair_in(tmp_path / "pair", **stated(**{name: value}))
    image = row["images"][0]
    assert (image["boxes"], image["original_boxes"], image["view"]) == (BOXES, None, None)
    facts = facts_of(conform(pa.Table.from_pylist([{**row, "key": "0" * 24}])), "captions")
    assert {"column_original_boxes", "column_view"} <= facts.keys()
    row = document_in(tmp_path / "document", None, **{**PLACED, name: value})
    image = row["images"][1]
    assert (image["boxes"], image["original_boxes"], image["view"]) == (BOXES, None, None)
    assert "metadata" in json.loads(row["extra"])


def span_with(**change: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SENTENCE["grounding"])
    found["spans"][0] |= change
    return found


WRONG_SPANS = [5, "a", [], {}, {"task": "paint", "spans": []}, {"task": "mention", "spans": 3}]
WRONG_SPANS += [span_with(**one) for one in ({"words": "a dog"}, {"start": -1}, {"end": 10**30}, {"image": 1}, {"boxes": [3]})]
WRONG_SPANS += [span_with(**one) for one in ({"boxes": [True]}, {"boxes": None}, {"start": 1.0}, {"extra": 1})]


@pytest.mark.parametrize("value", WRONG_SPANS, ids=str)
def test_a_grounding_that_does_not_fit_is_kept_as_a_column(tmp_path: Path, value: Any) -> None:
    row = pair_in(tmp_path / "pair", **stated(grounding=value))
    assert row["texts"][1]["grounding"] is None
    facts = facts_of(conform(pa.Table.from_pylist([{**row, "key": "0" * 24}])), "captions")
    assert (facts.get("grounding"), facts["column_grounding"]) == (None, value)
    row = document_in(tmp_path / "document", [None, None, value], **PLACED)
    assert row["texts"][2]["grounding"] is None
    assert json.loads(row["extra"])["grounding"] == [None, None, value]


def test_a_list_of_groundings_with_another_length_is_kept_as_a_column(tmp_path: Path) -> None:
    row = document_in(tmp_path / "document", SAID[1:], **PLACED)
    assert [text and text["grounding"] for text in row["texts"]] == [None, None, None]
    assert json.loads(row["extra"])["grounding"] == SAID[1:]


def test_a_broken_box_leaves_no_number_that_means_another_box(tmp_path: Path) -> None:
    row = pair_in(tmp_path / "pair", **stated(boxes=[["a", 0, 1, 1], BOXES[0], BOXES[2]], grounding=None))
    assert row["images"][0]["boxes"] == [BOXES[0], BOXES[2]]
    assert row["images"][0]["original_boxes"] is None
    row = pair_in(tmp_path / "spans", **stated(boxes=[["a", 0, 1, 1], BOXES[0], BOXES[2]]))
    assert row["texts"][1]["grounding"] is None


# -- whole runs


def built(source: dict[str, Any], steps: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Build a dataset and return the JSON of its only sample."""
    made = run(parse({"source": source, "steps": steps, "shards": {"layout": "captions"}}), out, local=True, workers=1)
    assert made["kept"] == 1
    (sample,) = stream(str(out), seed=None, torch=False, reading=ReadOptions(cache=out.parent / f"{out.name}-cache"))
    facts: dict[str, Any] = json.loads(sample["json"])
    check("sample", facts)
    return facts


@pytest.mark.whole
def test_a_dataset_that_is_built_again_with_a_crop_keeps_its_originals_and_moves_its_numbers(tmp_path: Path) -> None:
    key, members = caption(0)
    text = grounded(("a dog", 0), " and ", ("a cat", 2), " and ", ("a man", 1), numbers={0: OLD, 1: OLD, 2: OLD})
    given = {"boxes": [[40.0, 10.0, 80.0, 30.0], [0.0, 0.0, 9.0, 9.0], [30.0, 30.0, 60.0, 60.0]], "caption": text["text"]}
    facts = {**json.loads(members["json"]), **given, "width": 120, "height": 60, "grounding": json.loads(text["grounding"])}
    folder = tmp_path / "source"
    made = {"json": json.dumps(facts).encode(), "png": picture(120, 60), "txt": text["text"].encode()}
    make_dataset(folder, [(key, made)], layout="captions")
    source = {"type": "webdataset", "path": str(folder)}

    first = built(source, [{"resize": {"mode": "border", "size": 60}}], tmp_path / "first")
    originals = [[1 / 3, 1 / 6, 2 / 3, 0.5], [0.0, 0.0, 0.075, 0.15], [0.25, 0.5, 0.5, 1.0]]
    assert (first["original_boxes"], first["view"]) == (originals, [0.0, -0.5, 1.0, 1.5])
    assert first["boxes"] == [[20.0, 20.0, 40.0, 30.0], [0.0, 15.0, 4.5, 19.5], [15.0, 30.0, 30.0, 45.0]]
    assert first["caption"] == (
        "a dog [0.333, 0.333, 0.667, 0.500] and a cat [0.250, 0.500, 0.500, 0.750] and a man [0.000, 0.250, 0.075, 0.325]"
    )

    whole = built(source, [{"resize": {"mode": "keep_ratio", "size": 30}}], tmp_path / "whole")
    assert (whole["original_boxes"], whole.get("view")) == (originals, None)
    again = {"type": "webdataset", "path": str(tmp_path / "whole")}
    crop = built(again, [{"resize": {"mode": "center_crop", "size": 20}}], tmp_path / "crop")
    assert (crop["original_boxes"], crop["view"]) == (originals, [0.25, 0.0, 0.75, 1.0])
    assert crop["boxes"][1] is None
    assert crop["boxes"][0] == pytest.approx([20 / 6, 20 / 6, 100 / 6, 10.0])
    assert crop["caption"] == "a dog [0.167, 0.167, 0.833, 0.500] and a cat [0.000, 0.500, 0.500, 1.000] and a man"
    assert words_in(crop, crop["caption"], crop["grounding"]) == [("a dog", 0, (0,)), ("a cat", 0, (2,))]
    shares = stored_boxes(crop)
    assert shares is not None
    assert [one and round(one.visible, 6) for one in shares] == [1.0, None, 1.0]
    assert not {name for facts in (first, whole, crop) for name in facts if name.startswith("column_")}
