"""Questions and answers about the places of objects say what the labelled boxes say, and nothing else."""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.generation.labelled_source import PHOTOS, photo_rows
from tests.real_data import real_data
from tests.rows import document, table
from vlmdata import run
from vlmdata.errors import RecipeError
from vlmdata.export_dataset import export
from vlmdata.grounding.questions import TEMPLATES
from vlmdata.grounding.spans import read_grounding
from vlmdata.grounding.stored_boxes import stored_boxes
from vlmdata.grounding.write import FORMS, read_text
from vlmdata.row import IMAGE as ROW_IMAGE
from vlmdata.row import alive, conform
from vlmdata.steps.ground import Ground
from vlmdata.text.object_names import coco_names

IMAGE = {
    "blob": "b",
    "offset": 0,
    "size": 1,
    "width": 100,
    "height": 50,
    "boxes": [[10.0, 10.0, 50.0, 50.0], [0.0, 5.0, 100.0, 50.0], [60.0, 20.0, 80.0, 40.0]],
    "box_labels": ["dog", "couch", "dog"],
}


def rows_of(image: dict[str, Any], *texts: str, **fields: Any) -> pa.Table:
    row = {"key": f"{0:024x}", **document(image, *texts), **fields}
    images = pa.array([row.pop("images")], pa.list_(ROW_IMAGE))
    return conform(pa.Table.from_pylist([row]).append_column("images", images))


def turns(rows: pa.Table, row: int = 0) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the pairs of question and answer that the row has."""
    if rows["roles"][row].as_py() is None:
        return []
    kept = [text for text in rows["texts"][row].as_py() if text and text["drop"] is None]
    return list(zip(kept[::2], kept[1::2], strict=True))


def said(rows: pa.Table) -> list[tuple[str, str]]:
    return [(question["text"], answer["text"]) for question, answer in turns(rows)]


def one(task: str, count: int = 1, **parameters: Any) -> Ground:
    step = Ground(**{"names": "coco", "tasks": [task], "questions": {task: count}, "absent": 0.0, **parameters})
    step.check()
    return step


def test_a_pair_becomes_a_conversation_and_no_position_moves() -> None:
    rows = rows_of(IMAGE, "A couch.", extra='{"id": 7}')
    done = one("refer", templates={"refer": ["Where is {phrase}?"]}).run(rows)
    (row,) = done.to_pylist()
    assert row["images"] == [*rows.to_pylist()[0]["images"], None, None] and row["texts"][1]["reason"] == "caption_in_json"
    assert said(done) == [("Where is the couch?", "the couch [0.000, 0.100, 1.000, 1.000]")]
    assert row["roles"] == ["user", "user", "user", "assistant"]
    assert json.loads(row["extra"]) == {"id": 7, "ground": {"captions": ["A couch."], "kinds": ["refer"]}}
    ((question, answer),) = turns(done)
    found = read_grounding(answer["grounding"], answer["text"])
    assert found is not None and (found.task, found.spans[0].boxes, found.spans[0].image) == ("refer", (1,), 0)
    asked = read_grounding(question["grounding"], question["text"])
    assert asked is not None and [(span.words, span.boxes) for span in asked.spans] == [("the couch", ())]


def test_a_conversation_gets_its_turns_at_the_end() -> None:
    rows = rows_of(IMAGE, "Hello?", "Yes.", roles=["user", "user", "assistant"], turns=[None, None, None])
    done = one("refer").run(rows)
    (row,) = done.to_pylist()
    assert said(done)[0] == ("Hello?", "Yes.") and len(said(done)) == 2 and row["extra"] is None
    assert row["roles"] == ["user", "user", "assistant", "user", "assistant"] and len(row["turns"]) == 5


def test_detect_lists_all_boxes_of_each_name() -> None:
    ((question, answer),) = said(one("detect", max_names=1, templates={"detect": ["{names}?"]}).run(rows_of(IMAGE, "x")))
    truth = {
        "dog": "dog [0.100, 0.200, 0.500, 1.000] [0.600, 0.400, 0.800, 0.800]",
        "couch": "couch [0.000, 0.100, 1.000, 1.000]",
    }
    assert answer == truth[question.strip("?")]


def test_only_a_name_with_one_box_is_referred_to() -> None:
    assert [answer.split(" [")[0] for _, answer in said(one("refer", 9).run(rows_of(IMAGE, "x")))] == ["the couch"]


def test_describe_asks_about_boxes_at_which_nothing_else_lies() -> None:
    near = {**IMAGE, "boxes": [[10.0, 10.0, 50.0, 50.0], [10.0, 10.0, 49.0, 50.0], [60.0, 20.0, 80.0, 40.0]]}
    done = one("describe", 9, templates={"describe": ["{box}?"]}).run(rows_of(near, "x"))
    assert said(done) == [("[0.600, 0.400, 0.800, 0.800]?", "dog")]


@pytest.mark.parametrize(
    ("caption", "grounded"),
    [
        ("Dogs on a couch.", "Dogs [D] on a couch [C]."),
        ("Two dogs on a sofa", "Two dogs [D] on a sofa [C]"),
        ("three dogs on the couch", "three dogs on the couch [C]"),
        ("A dog on a couch", "A dog on a couch [C]"),  # one dog of two
        ("Puppies on a couch.", "Puppies on a couch [C]."),  # perhaps only some of the dogs
        ("A couch cushion and a couch", None),
        ("A couch cushion", None),
        ("no couch, and another couch", None),
        ("A cat.", None),
        ("Two small dogs on a couch", "Two small dogs [D] on a couch [C]"),
        ("three small dogs on a couch", "three small dogs on a couch [C]"),  # there are two
        ("twelve dogs on a couch", "twelve dogs on a couch [C]"),
        ("a few dogs", None),
        ("a room without any small dogs", None),
        ("not a single red couch", None),
        ("There isn't a couch", None),
        ("a couch-shaped cake", None),  # a part of a longer word
        ("a couch/bed", None),
        ("the dogs' bowl", None),
        ("It is the couch's.", None),
        ("a pseudo-couch", None),
    ],
)
def test_words_of_a_caption_stand_for_boxes_only_if_it_is_sure(caption: str, grounded: str | None) -> None:
    found = said(one("mention", require=False).run(rows_of(IMAGE, caption)))
    boxes = {"[D]": "[0.100, 0.200, 0.500, 1.000] [0.600, 0.400, 0.800, 0.800]", "[C]": "[0.000, 0.100, 1.000, 1.000]"}
    for short, text in boxes.items():
        grounded = grounded and grounded.replace(short, text)
    assert found == ([] if grounded is None else [(found[0][0], grounded)])


def test_an_absent_name_is_in_no_box_and_no_caption() -> None:
    step = one("detect", 0, absent=1.0, names=["dog", "couch", "cat", "kite"], require=False)
    assert said(step.run(rows_of(IMAGE, "x"))) == []  # no question of detect is wanted
    step = one("detect", 1, absent=1.0, names=["dog", "couch", "cat", "kite"])
    asked = said(step.run(rows_of(IMAGE, "A kitten flies.")))
    assert "kite" in asked[-1][0] and asked[-1][1] == "There are none."


@pytest.mark.parametrize("label", ["Cat", "cats", "KITTEN", "a black cat", "cat "])
def test_a_name_is_not_absent_if_a_box_names_it_in_other_words(label: str) -> None:
    step = one("detect", 1, absent=1.0, names=["Cat", "kite"], templates={"detect": ["{names}?"]}, require=False)
    image = {**IMAGE, "box_labels": [label, "couch", "kite"]}
    assert "There are none." not in [answer for _, answer in said(step.run(rows_of(image, "x")))]


@pytest.mark.parametrize("label", ["diningtable", "tvmonitor", "aeroplane", "pottedplant", "motorbike", "sofa"])
def test_the_names_of_pascal_voc_are_those_of_coco(label: str) -> None:
    scene = Ground(names="coco").scene(0, {**IMAGE, "box_labels": [label, None, None]})
    assert scene is not None and len(set(coco_names()) & scene.named) == 1


@pytest.mark.parametrize("label", ["Dog", "puppy", "dogs"])
def test_a_name_is_not_complete_if_another_label_names_such_an_object(label: str) -> None:
    image = {**IMAGE, "box_labels": ["dog", "couch", label]}
    for task in ("detect", "refer"):
        found = said(one(task, 9, max_names=1, require=False).run(rows_of(image, "x")))
        assert {answer.split(" [")[0].removeprefix("the ") for _, answer in found} == {"couch"}


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"box_labels": ["dog", "couch", None]}, set()),  # the third may be anything
        ({"boxes": [[10.0, 10.0, 50.0, 50.0], [0.0, 5.0, 100.0, 50.0], [60.0, 20.0, 60.5, 20.5]]}, {"couch"}),  # too small
        ({"boxes": [[10.0, 10.0, 50.0, 50.0], [0.0, 5.0, 100.0, 50.0], None]}, {"couch", "dog"}),  # cut away
        ({"boxes": [[10.0, 10.0, 50.0, 50.0], [0.0, 5.0, 100.0, 50.0], [60.0, 20.0, 50.0, 40.0]]}, {"couch"}),  # no place
        (
            {  # a tenth of the third is left
                "original_boxes": [[0.05, 0.2, 0.25, 1.0], [0.0, 0.1, 0.5, 1.0], [0.48, 0.4, 0.68, 0.8]],
                "boxes": [[10.0, 10.0, 50.0, 50.0], [0.0, 5.0, 100.0, 50.0], [96.0, 20.0, 100.0, 40.0]],
                "view": [0.0, 0.0, 0.5, 1.0],
            },
            {"couch"},
        ),
    ],
)
def test_a_name_is_asked_for_only_if_all_its_objects_are_known_and_seen(change: dict[str, Any], asked: set[str]) -> None:
    found = said(one("detect", max_names=1, require=False, questions={"detect": 9}).run(rows_of({**IMAGE, **change}, "x")))
    assert {answer.split(" [")[0] for _, answer in found} == asked


def test_a_box_around_a_group_is_not_an_object() -> None:
    boxes = [[5.0, 5.0, 95.0, 45.0], *([x, 10.0, x + 10, 30.0] for x in (10.0, 30.0, 50.0))]
    image = {**IMAGE, "boxes": boxes, "box_labels": ["dog"] * 4}
    assert said(one("detect", require=False).run(rows_of(image, "x"))) == []


def test_a_source_without_labelled_boxes_is_a_mistake_before_work_starts() -> None:
    step = one("detect")
    step.check_rows(rows_of(IMAGE, "x"))
    for change in ({"box_labels": None}, {"box_labels": [None, "", None]}, {"boxes": None, "box_labels": None}):
        with pytest.raises(RecipeError, match="needs boxes with labels, and none of the source's first 1 rows has one"):
            step.check_rows(rows_of({**IMAGE, **change}, "x"))


def test_ten_thousand_boxes_take_seconds() -> None:
    boxes = [[float(at % 90), at // 90 % 40 + 0.0, at % 90 + 9.0, at // 90 % 40 + 9.0] for at in range(10_000)]
    image = {**IMAGE, "boxes": boxes, "box_labels": [("dog", "cat")[at % 2] for at in range(10_000)]}
    start = time.process_time()
    assert said(one("describe", require=False).run(rows_of(image, "x"))) == []  # a cat lies at the place of each dog
    assert time.process_time() - start < 20  # one by one, these pairs of boxes take a minute


def test_a_box_that_the_source_calls_a_crowd_is_not_an_object() -> None:
    rows = rows_of(IMAGE, "x", extra='{"crowds": [1]}')
    found = said(one("detect", max_names=1, require=False, questions={"detect": 9}).run(rows))
    assert {answer.split(" [")[0] for _, answer in found} == {"dog"}


def test_phrases_are_referred_to_as_they_are_and_are_no_names() -> None:
    labels = ["the dog on the left", "a red couch", "a red couch"]
    step = Ground(phrases=True, tasks=["refer", "detect"], questions={"refer": 9}, templates={"refer": ["{phrase}?"]})
    step.check()
    assert [question for question, _ in said(step.run(rows_of({**IMAGE, "box_labels": labels}, "x")))] == [f"{labels[0]}?"]


def test_a_box_with_several_phrases_is_described_by_each() -> None:
    box = IMAGE["boxes"][0]
    image = {**IMAGE, "boxes": [box, box, None], "box_labels": ["the brown dog", "dog at left", None]}
    step = Ground(phrases=True, tasks=["refer", "describe"], questions={"refer": 9, "describe": 9})
    found = said(step.run(rows_of(image, "")))
    assert sorted(answer for _, answer in found[2:]) == ["dog at left", "the brown dog"] and len(found) == 4


def test_rows_without_turns_are_dropped_with_a_reason_or_stay() -> None:
    rows = table(
        [
            {**document({**IMAGE, "boxes": None, "box_labels": None}, "x"), "roles": None},
            {**document({**IMAGE, "box_labels": ["tree"] * 3}, "x"), "roles": None},
            {**document("words", IMAGE, "more", IMAGE), "roles": None},
            {**document({**IMAGE, "boxes": None, "box_labels": None}, "a", "b"), "roles": ["user", "user", "assistant"]},
        ]
    )
    done = one("refer").run(rows)
    assert done["reason"].to_pylist() == ["no_boxes", "nothing_to_ask", None, None]
    assert done["texts"].equals(rows["texts"]) and alive(one("refer", require=False).run(rows)).all()


def test_another_seed_draws_other_questions_and_the_same_draws_the_same() -> None:
    rows = table([{**document(IMAGE, "x"), "roles": None} for _ in range(40)])
    first, again, other = (Ground(names="coco", seed=seed).run(rows)["texts"] for seed in (0, 0, 1))
    assert first.equals(again) and not first.equals(other)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "qwen2_5_vl"])
def test_a_form_is_written_for_the_stored_image_without_grounding(form: str) -> None:
    ((question, answer),) = turns(one("refer", form=form).run(rows_of(IMAGE, "x")))
    assert question["grounding"] is None and answer["grounding"] is None
    assert len(read_text(answer["text"], form, 100, 50).found) == 1


def test_pixels_of_qwen2_5_are_those_of_the_resized_picture() -> None:
    image = {**IMAGE, "width": 640, "height": 427, "boxes": [[0.0, 0.0, 320.0, 427.0]], "box_labels": ["dog"]}
    ((_, answer),) = said(one("refer", form="qwen2_5_vl", form_pixels=[3136, 12_845_056]).run(rows_of(image, "x")))
    assert '"bbox_2d": [0, 0, 322, 419]' in answer  # of 644 x 420


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "ground needs names: coco, or a list of labels"),
        ({"names": "lvis"}, "ground.names must be coco or a list of labels, not 'lvis'"),
        ({"names": "coco", "tasks": ["find"]}, "ground.tasks: there is no task 'find'"),
        ({"names": "coco", "tasks": []}, "ground.tasks needs a task"),
        ({"names": "coco", "absent": 2}, r"ground.absent must lie in \[0, 1\], not 2"),
        ({"names": "coco", "max_names": 0}, "ground.max_names must be 1 to 1,000, not 0"),
        ({"names": "coco", "questions": {"refer": -1}}, "ground.questions must have numbers"),
        ({"names": "coco", "templates": {"refer": ["Where?"]}}, "ground.templates.refer, text 1 needs the place {phrase}"),
        ({"names": "coco", "templates": {"refer": ["{name}?"]}}, "ground.templates.refer, text 1: nothing is known for"),
        ({"names": "coco", "templates": {"refer": ["{phrase}{phrase}"]}}, "ground.templates.refer, text 1 has the place"),
        ({"names": "coco", "templates": {"mention": []}}, "ground.templates.mention needs a text"),
        ({"names": "coco", "form": "qwen3"}, "ground.form: there is no form of grounded text named 'qwen3'. Did you mean"),
        ({"names": "coco", "form": "qwen2_5_vl"}, "ground.form qwen2_5_vl has pixels of the model's picture, so it needs"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}") as caught:
        Ground(**parameters).check()
    assert "\n" not in str(caught.value)


def test_a_source_without_labelled_boxes_is_a_mistake() -> None:
    Ground(names="coco").check_rows(rows_of(IMAGE, "A couch."))
    with pytest.raises(RecipeError, match=r"^ground needs boxes with labels, and none of the source's first 1 rows has one"):
        Ground(names="coco").check_rows(rows_of({**IMAGE, "box_labels": None}, "A couch."))


def photos() -> pa.Table:
    folder = real_data("A_captioned/coco_free_licence")
    rows = photo_rows(folder)
    return conform(pa.Table.from_pylist([{**row, "key": f"{number:024x}"} for number, row in enumerate(rows)]))


def test_all_facts_about_the_photos_of_coco_are_those_of_their_boxes() -> None:
    rows = photos()
    done = Ground(names="coco", require=False, questions={"refer": 99, "describe": 99, "detect": 99}).run(rows)
    kinds: Counter[str] = Counter()
    for row in done.to_pylist():
        image = row["images"][0]
        if row["roles"] is None:
            continue
        labels, places = image["box_labels"], stored_boxes(image)
        assert places is not None
        for question, answer in turns(pa.Table.from_pylist([row], done.schema)):
            found = read_grounding(answer["grounding"], answer["text"])
            assert found is not None
            kinds[found.task] += 1
            asked = read_grounding(question["grounding"], question["text"])
            for span in found.spans:
                numbers = set(span.boxes)
                names = {labels[number] for number in span.boxes}
                assert len(names) == 1 and all(places[number] for number in numbers)
                assert numbers == {number for number, label in enumerate(labels) if label in names}
            if found.task == "detect":
                names = {span.words for span in asked.spans} if asked else set()
                assert {answer["text"][span.start : span.phrase_end] for span in found.spans} == names & set(labels)
            if found.task == "describe":
                assert asked is not None and answer["text"] == labels[asked.spans[0].boxes[0]]
    assert min(kinds.values()) > 30 and set(kinds) == {"detect", "refer", "describe", "mention"}


@pytest.mark.whole
def test_photos_become_a_dataset_with_grounding_and_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    path = real_data("A_captioned/coco_free_licence") / "manifest.jsonl"
    recipe = tmp_path / "recipe.json"
    steps = [{"ground": {"names": "coco"}}]
    source = {"type": PHOTOS, "path": str(path)}
    recipe.write_text(json.dumps({"source": source, "shards": {"layout": "documents"}, "steps": steps}))
    manifest = run(recipe, tmp_path / "out", local=True)
    assert manifest["kept"] == 51
    export(tmp_path / "out", tmp_path / "to", to="llava")
    found = json.loads((tmp_path / "to" / "llava.json").read_text())
    assert len(found) == 51 and all(one["ground"]["captions"] for one in found)


def test_the_names_of_coco_are_eighty_and_every_task_has_wordings() -> None:
    assert len(coco_names()) == len(set(coco_names())) == 80 and "hair drier" in coco_names()
    assert all(len(set(texts)) == len(texts) > 1 for texts in TEMPLATES.values())
