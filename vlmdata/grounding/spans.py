"""Which words of a text stand for which boxes: the JSON in a text's field `grounding`.

A grounded text is readable by itself. Behind the words of an object it has the object's boxes, as fractions of the stored
image: `the dog [0.125, 0.250, 0.500, 0.750] on a sofa`. A span marks the words and the boxes. The boxes are stored once, with
the image; a span has their numbers. So the text can be written again in the form of a model, for the pixels that it gets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of an image's width and height
# What the text does. mention: a text, with boxes behind words. detect: a question that names objects, or an answer that only
# lists objects and their boxes. refer: a question for the place of an object, or an answer that is only its boxes. describe: a
# question with only boxes, or its answer without boxes.
Task = Literal["mention", "detect", "refer", "describe"]
TASKS: tuple[Task, ...] = ("mention", "detect", "refer", "describe")
DIGITS = 3


@dataclass(frozen=True)
class Span:
    """The words of an object and its boxes in a text: `text[start:phrase_end]` and `text[phrase_end:end]`.

    `words` is `text[start:end]`. If a step changed the text there, the span is invalid. A span may have no phrase, where boxes
    stand alone, or no boxes, where a question names an object.
    """

    start: int
    phrase_end: int
    end: int
    words: str
    image: int  # position of the image in the lists of the row, or of the sample
    boxes: tuple[int, ...]  # numbers of the image's boxes, from 0

    def moved(self, characters: int) -> Span:
        """Return the span of a text with this many more characters before it."""
        return replace(self, start=self.start + characters, phrase_end=self.phrase_end + characters, end=self.end + characters)


@dataclass(frozen=True)
class Grounding:
    """The spans of a text in order, without overlap, and the task of the text."""

    task: Task
    spans: tuple[Span, ...]

    def as_json(self) -> dict[str, Any]:
        """Return an object for JSON, which `read_grounding` reads."""
        return {"task": self.task, "spans": [{**vars(span), "boxes": list(span.boxes)} for span in self.spans]}

    def dump(self) -> str:
        """Return the value of the field `grounding` of a text."""
        return json.dumps(self.as_json(), ensure_ascii=False)


def read_grounding(value: Any, text: str | None) -> Grounding | None:
    """Return the grounding of `text` from its object or from the object's JSON, with the spans that are valid.

    The result is None if there is none, or if the value has another form. A text with the task `mention` has spans.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if text is None or not isinstance(value, Mapping) or value.get("task") not in TASKS:
        return None
    found = value.get("spans")
    spans: list[Span] = []
    for one in found if isinstance(found, list) else ():
        span = _span(one, text)
        if span is not None and span.start >= (spans[-1].end if spans else 0):
            spans.append(span)
    return Grounding(value["task"], tuple(spans)) if spans or value["task"] != "mention" else None


def _span(value: Any, text: str) -> Span | None:
    if not isinstance(value, Mapping):
        return None
    boxes = value.get("boxes")
    numbers: list[Any] = [value.get(name) for name in ("start", "phrase_end", "end", "image")]
    if not isinstance(boxes, list) or not all(type(one) is int and one >= 0 for one in (*numbers, *boxes)):
        return None
    start, middle, end, image = numbers
    if not start <= middle <= end or start == end or text[start:end] != value.get("words"):
        return None
    return Span(start, middle, end, value["words"], image, tuple(boxes))


def plain_boxes(boxes: Sequence[Box]) -> str:
    """Return boxes as they stand in a grounded text: `[0.125, 0.250, 0.500, 0.750]`, one behind the other."""
    return " ".join(f"[{', '.join(f'{edge:.{DIGITS}f}' for edge in box)}]" for box in boxes)
