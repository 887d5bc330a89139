"""Questions that refer to marks on a picture, with answers from the names of the marked boxes.

The wording is vlmdata's own. ViP-LLaVA (Cai et al. 2023, arXiv:2312.00784) refers to a mark by its colour and shape too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.draws import Draws
from vlmdata.generation.question_form import Turn

NAME, YES_NO, NUMBER = "name", "yes_no", "number"
FORMS = (NAME, YES_NO, NUMBER)
SHORT = 3  # words; a longer label is a description
ROUND = (0.9, 1.1)  # width by height of an ellipse that is called a circle

# COCO's 80 categories in its 12 groups (Lin et al. 2014). A wrong name in a question comes from another group than the right
# one, because a cup and a wine glass, or a truck and a car, are easily mistaken for each other.
GROUPS = {
    "person": ("person",),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    "sports": (
        *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
        *("surfboard", "tennis racket"),
    ),
    "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    "food": ("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
    "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
}
GROUP = {name: group for group, names in GROUPS.items() for name in names}
WITHOUT_ARTICLE = ("skis", "scissors", "broccoli")

FRAMED = ("What is the object in the {mark}?", "Name the object in the {mark}.", "Which object does the {mark} show?")
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "box": FRAMED,
    "ellipse": FRAMED,
    "triangle": (
        "What is the object marked with the {mark}?",
        "Name the object marked with the {mark}.",
        "Which object does the {mark} mark?",
    ),
    "point": ("What is the object at the {mark}?", "Name the object at the {mark}.", "Which object is the {mark} on?"),
    "arrow": (
        "What does the {mark} point to?",
        "Name the object that the {mark} points to.",
        "Which object does the {mark} point to?",
    ),
}
PLACES = {
    "box": "in the {mark}",
    "ellipse": "in the {mark}",
    "triangle": "marked with the {mark}",
    "point": "at the {mark}",
    "arrow": "that the {mark} points to",
}
DESCRIBE = {kind: f"Describe the object {place}." for kind, place in PLACES.items()}
LISTS = ("What are the objects marked {numbers}?", "Name the objects marked {numbers}.")


@dataclass(frozen=True)
class Drawn:
    """What was drawn on a picture: its marks as objects of `Mark.as_json`, its size in pixels, and other labels.

    `apart` are labels of boxes that have nothing in common with the marked one, `near` those of boxes that overlap it.
    """

    marks: Sequence[Mapping[str, Any]]
    size: tuple[int, int]
    apart: Sequence[str]
    near: Sequence[str]


def question_about(drawn: Drawn, weights: Mapping[str, float], draws: Draws) -> tuple[str, Turn]:
    """Return the form and the turn for the marks of a picture.

    The form is drawn by the weights, among those that fit: `yes_no` needs one mark with a name of COCO, `number` several marks
    with different names of COCO. The form `name` always fits.
    """
    marks, size = drawn.marks, drawn.size
    for form in draws.by_weight("form", weights):
        if form == YES_NO and len(marks) == 1 and marks[0]["label"].casefold() in GROUP:
            return form, _yes_no(drawn, draws)
        if form == NUMBER and len(marks) > 1 and _are_different(marks):
            asked = draws.one("asked", marks)
            return form, Turn(f"Which number marks the {asked['label']}?", str(asked["number"]))
        if form == NAME:
            break
    if len(marks) == 1:
        return NAME, _name(marks[0], size, draws)
    numbers = [str(one["number"]) for one in marks]
    question = draws.one("words", LISTS).format(numbers=f"{', '.join(numbers[:-1])} and {numbers[-1]}")
    return NAME, Turn(question, ", ".join(f"{one['number']}: {one['label']}" for one in marks))


def mark_words(mark: Mapping[str, Any], size: tuple[int, int]) -> str:
    """Return what a question calls a mark, such as `red box`. A round ellipse is a circle."""
    kind = mark["kind"]
    x0, y0, x1, y1 = mark["place"]
    if kind == "ellipse" and ROUND[0] <= (x1 - x0) * size[0] / ((y1 - y0) * size[1]) <= ROUND[1]:
        kind = "circle"
    return f"{mark['colour']} {kind}"


def with_article(name: str) -> str:
    """Return a name of COCO with its indefinite article, if it takes one."""
    if name.casefold() in WITHOUT_ARTICLE:
        return name
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _name(mark: Mapping[str, Any], size: tuple[int, int], draws: Draws) -> Turn:
    kind = mark["kind"]
    wording = draws.one("words", QUESTIONS[kind]) if len(mark["label"].split()) <= SHORT else DESCRIBE[kind]
    return Turn(wording.format(mark=mark_words(mark, size)), mark["label"])


def _yes_no(drawn: Drawn, draws: Draws) -> Turn:
    mark = drawn.marks[0]
    label = mark["label"]
    group = GROUP[label.casefold()]
    wrong = [one for one in drawn.apart if GROUP.get(one.casefold(), group) != group]
    near = {one.casefold() for one in drawn.near}
    wrong = wrong or [one for one, other in GROUP.items() if other != group and one not in near]
    is_right = draws.number("right") < 0.5
    asked = label if is_right else draws.one("wrong", wrong)
    place = PLACES[mark["kind"]].format(mark=mark_words(mark, drawn.size))
    answer = "Yes." if is_right else f"No, it is {with_article(label)}."
    return Turn(f"Is the object {place} {with_article(asked)}?", answer)


def _are_different(marks: Sequence[Mapping[str, Any]]) -> bool:
    names = [one["label"].casefold() for one in marks]
    return len(set(names)) == len(names) and all(name in GROUP for name in names)
