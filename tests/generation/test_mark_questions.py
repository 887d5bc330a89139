"""Questions name the marks, and their answers are true of the marked boxes."""

import re
from collections import Counter
from typing import Any

import pytest

from vlmdata.draws import Draws
from vlmdata.generation.mark_questions import DESCRIBE, GROUP, QUESTIONS, Drawn, mark_words, question_about, with_article
from vlmdata.text.object_names import COCO

SIZE = (400, 200)


def mark(label: str, kind: str = "box", place: tuple[float, ...] = (0.1, 0.1, 0.3, 0.3), **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "colour": "red", "label": label, "place": place, **fields}


def asked(drawn: Drawn, **weights: float) -> Counter[tuple[str, str, str]]:
    found = (question_about(drawn, weights, Draws(0, str(n))) for n in range(200))
    return Counter((form, turn.question, turn.answer) for form, turn in found)


def test_the_groups_hold_the_80_categories_of_coco_once() -> None:
    names = {line.partition(":")[0].replace("_", " ") for line in COCO.replace("\n    ", " ").strip().splitlines()}
    assert set(GROUP) == names and len(GROUP) == 80


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_question_names_the_colour_and_the_shape(kind: str) -> None:
    place = (0.1, 0.1, 0.3, 0.3)  # 80 by 40 pixels
    found = asked(Drawn([mark("dog", kind, place)], SIZE, [], []), name=1)
    assert len(found) == 3 and {answer for _, _, answer in found} == {"dog"}
    assert all(f"red {kind}" in question for _, question, _ in found)


def test_only_a_round_ellipse_is_a_circle() -> None:
    assert mark_words(mark("dog", "ellipse", (0.1, 0.1, 0.2, 0.3)), SIZE) == "red circle"
    assert mark_words(mark("dog", "ellipse", (0.1, 0.1, 0.3, 0.3)), SIZE) == "red ellipse"
    assert mark_words(mark("dog", "box", (0.1, 0.1, 0.2, 0.3)), SIZE) == "red box"


def test_a_long_label_is_a_description() -> None:
    (found,) = asked(Drawn([mark("a brown dog on sand", "arrow")], SIZE, [], []), name=1)
    assert found == ("name", "Describe the object that the red arrow points to.", "a brown dog on sand")
    assert DESCRIBE.keys() == QUESTIONS.keys()


def test_a_question_about_a_thing_is_as_often_true_as_false_and_its_answer_right() -> None:
    found = asked(Drawn([mark("dog")], SIZE, ["car", "cat", "bench"], ["person"]), yes_no=1)
    right = {key: count for key, count in found.items() if key[2] == "Yes."}
    assert sum(right.values()) == pytest.approx(100, abs=25) and len(right) == 1
    assert ("yes_no", "Is the object in the red box a dog?", "Yes.") in right
    wrong = {question: answer for _, question, answer in found if answer != "Yes."}
    assert wrong == {f"Is the object in the red box a {name}?": "No, it is a dog." for name in ("car", "bench")}


def test_a_wrong_name_is_of_another_group_and_of_nothing_near() -> None:
    found = asked(Drawn([mark("cup")], SIZE, ["bowl"], ["dining table", "cup"]), yes_no=1)
    names = {re.search(r"box (?:an? )?(.*)\?", question)[1] for _, question, answer in found if answer != "Yes."}  # type: ignore[index]
    assert len(names) > 20 and not names & {"dining table", *(name for name in GROUP if GROUP[name] == GROUP["cup"])}


@pytest.mark.parametrize("label", ["small brown terrier", "sky"])
def test_only_names_of_coco_are_asked_about(label: str) -> None:
    assert {form for form, _, _ in asked(Drawn([mark(label)], SIZE, ["car"], []), yes_no=1)} == {"name"}


def test_several_marks_are_listed_by_number_or_one_is_looked_for() -> None:
    marks = [mark(label, number=n) for n, label in enumerate(("dog", "cat", "car"), 1)]
    listed = asked(Drawn(marks, SIZE, [], []), name=1, yes_no=1)
    assert {answer for _, _, answer in listed} == {"1: dog, 2: cat, 3: car"}
    assert all("marked 1, 2 and 3" in question for _, question, _ in listed)
    which = asked(Drawn(marks, SIZE, [], []), number=1)
    assert {(question, answer) for _, question, answer in which} == {
        (f"Which number marks the {label}?", str(n)) for n, label in enumerate(("dog", "cat", "car"), 1)
    }


@pytest.mark.parametrize("labels", [("dog", "Dog"), ("dog", "puppy")])
def test_no_number_is_asked_for_where_two_could_be_right(labels: tuple[str, str]) -> None:
    marks = [mark(label, number=n) for n, label in enumerate(labels, 1)]
    assert {form for form, _, _ in asked(Drawn(marks, SIZE, [], []), number=1)} == {"name"}


@pytest.mark.parametrize(
    ("name", "said"), [("dog", "a dog"), ("apple", "an apple"), ("skis", "skis"), ("broccoli", "broccoli")]
)
def test_articles(name: str, said: str) -> None:
    assert with_article(name) == said
