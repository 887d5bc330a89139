"""Makes questions and answers about the places of objects, in the neutral form of grounded texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vlmdata.grounding.caption_spans import Words
from vlmdata.grounding.scene import Scene, Thing
from vlmdata.grounding.spans import Grounding, Span, Task, plain_boxes

NONE = "There are none."  # Molmo's answer, and that of all forms without one of their own
PLACES: Mapping[Task, str] = {"detect": "names", "refer": "phrase", "describe": "box", "mention": ""}
TEMPLATES: Mapping[Task, tuple[str, ...]] = {
    "detect": (
        "Find all objects of these kinds: {names}.",
        "Mark every one of these in the picture: {names}.",
        "Locate these objects: {names}.",
        "Which places show these objects: {names}?",
    ),
    "refer": (
        "Locate {phrase}.",
        "Show the place of {phrase} in the picture.",
        "Find {phrase}.",
        "Mark the position of {phrase}.",
    ),
    "describe": (
        "What is at {box}?",
        "Name the object at {box}.",
        "What does the picture show at {box}?",
    ),
    "mention": (
        "Describe the picture in a sentence, and mark the objects that you name.",
        "Write a short caption that says where things are.",
        "What does the picture show, and where?",
    ),
}


class Grounded(NamedTuple):
    """A text, and its grounding if it has one."""

    text: str
    grounding: Grounding | None


class GroundedTurn(NamedTuple):
    """A question and its answer."""

    task: Task
    question: Grounded
    answer: Grounded


def detect(template: str, names: Sequence[str], scene: Scene) -> GroundedTurn:
    """Return a question for all objects of some names. The answer lists those of the picture, or says that there are none."""
    question = _composed("detect", template, [(name, ()) for name in names], scene)
    seen = [(name, _numbers(scene.complete[name])) for name in names if name in scene.complete]
    answer = _composed("detect", "{names}", seen, scene) if seen else Grounded(NONE, Grounding("detect", ()))
    return GroundedTurn("detect", question, answer)


def refer(template: str, phrase: str, thing: Thing, scene: Scene) -> GroundedTurn:
    """Return a question for the place of an object, which the phrase describes alone, and its box as the answer."""
    question = _composed("refer", template, [(phrase, ())], scene)
    return GroundedTurn("refer", question, _composed("refer", "{phrase}", [(phrase, (thing.number,))], scene))


def describe(template: str, thing: Thing, scene: Scene) -> GroundedTurn:
    """Return a question about the content of a box, and its label as the answer."""
    question = _composed("describe", template, [("", (thing.number,))], scene)
    return GroundedTurn("describe", question, Grounded(thing.label, Grounding("describe", ())))


def mention(question: str, caption: str, words: Sequence[Words], scene: Scene) -> GroundedTurn:
    """Return a question for a caption, and the caption with the boxes of its words."""
    text = ""
    spans: list[Span] = []
    at = 0
    for one in words:
        text += caption[at : one.start]
        spans.append(_span(text, caption[one.start : one.end], one.boxes, scene))
        text += spans[-1].words
        at = one.end
    return GroundedTurn("mention", Grounded(question, None), Grounded(text + caption[at:], Grounding("mention", tuple(spans))))


def _composed(task: Task, template: str, parts: Sequence[tuple[str, tuple[int, ...]]], scene: Scene) -> Grounded:
    before, _, after = template.partition(f"{{{PLACES[task]}}}")
    text = before
    spans: list[Span] = []
    for phrase, numbers in parts:
        text += ", " if spans else ""
        spans.append(_span(text, phrase, numbers, scene))
        text += spans[-1].words
    return Grounded(text + after, Grounding(task, tuple(spans)))


def _span(before: str, phrase: str, numbers: tuple[int, ...], scene: Scene) -> Span:
    """Return the span of a phrase and its boxes behind a text."""
    places = [place for place in (scene.places[number] for number in numbers) if place is not None]
    words = phrase + (" " if phrase and places else "") + plain_boxes(places)
    start = len(before)
    return Span(start, start + len(phrase), start + len(words), words, scene.image, numbers)


def _numbers(things: Sequence[Thing]) -> tuple[int, ...]:
    return tuple(thing.number for thing in things)
