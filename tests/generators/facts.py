"""A small language for what is in a picture of shapes: it is written, read, and compared with the picture.

    There are 5 objects. There are 2 red circles. A blue square is at the top left.

Claims may be questions: "Is there a red circle at the top left?", "Are there 2 red circles?", "Is it true that there are no
circles?". "How many red circles are there?" asks for a count.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, replace

from tests.generators.scenes import PAINT, PLACES, SHAPES, Scene, Thing

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
COUNT = rf"(?P<count>an?|\d+|{'|'.join(WORDS)})"
KIND = rf"(?:(?P<colour>{'|'.join(PAINT)}) )?(?P<shape>{'|'.join(SHAPES)}|object)s?"
PLACE = rf"(?:at|in) the (?P<place>{'|'.join(PLACES)})\b"
COUNTED = re.compile(rf"\b(?:there (?:is|are)|is there|are there) {COUNT} {KIND}\b(?: {PLACE})?", re.IGNORECASE)
PLACED = re.compile(rf"\b(?:an?|the) {KIND} (?:is )?{PLACE}", re.IGNORECASE)
ASKED = re.compile(rf"\bhow many {KIND} (?:are|is) there\b(?: {PLACE})?", re.IGNORECASE)


@dataclass(frozen=True)
class Fact:
    """A claim: there are exactly `count` things of a colour and shape in a place; without `count`, at least one.

    None for a colour, shape or place means any.
    """

    count: int | None = None
    colour: str | None = None
    shape: str | None = None
    place: str | None = None

    def counted(self, scene: Scene) -> int:
        """Return how many things of this kind are in this place of a picture."""
        return sum(self._is_of(thing, scene) for thing in scene.things)

    def _is_of(self, thing: Thing, scene: Scene) -> bool:
        wanted = ((self.colour, thing.colour), (self.shape, thing.shape), (self.place, scene.place(thing)))
        return all(value is None or value == found for value, found in wanted)

    def is_true_of(self, scene: Scene) -> bool:
        found = self.counted(scene)
        return found >= 1 if self.count is None else found == self.count

    def kind(self) -> str:
        return f"{self.colour or ''} {self.shape or 'object'}".strip()

    def text(self) -> str:
        """Return the claim as a sentence, which `facts_in` reads back."""
        place = f" at the {self.place}" if self.place else ""
        if self.count is None:
            return f"A {self.kind()} is{place}." if place else f"There is a {self.kind()}."
        return f"There is 1 {self.kind()}{place}." if self.count == 1 else f"There are {self.count} {self.kind()}s{place}."

    def question(self) -> str:
        """Return the claim as a question for yes or no."""
        claim = self.text().rstrip(".")
        return f"Is it true that {claim[0].lower()}{claim[1:]}?"


def _fact(match: re.Match[str]) -> Fact:
    found = {name: value and value.lower() for name, value in match.groupdict().items()}
    shape = None if found["shape"] == "object" else found["shape"]
    return Fact(_number(found.get("count")), found["colour"], shape, found["place"])


def _number(word: str | None) -> int | None:
    if word in (None, "a", "an"):
        return None
    return int(word) if word.isdigit() else WORDS.index(word)


def facts_in(text: str) -> list[Fact]:
    """Return the claims of a text, in order. Everything else in it is passed over."""
    found: list[re.Match[str]] = []
    for match in sorted([*COUNTED.finditer(text), *PLACED.finditer(text)], key=lambda one: (one.start(), -one.end())):
        if not found or match.start() >= found[-1].end():
            found.append(match)
    return [_fact(match) for match in found]


def asked_count(text: str) -> Fact | None:
    """Return what a text asks to count, or None."""
    match = ASKED.search(text)
    return _fact(match) if match else None


def judged(text: str, scene: Scene) -> list[tuple[Fact, bool]]:
    """Return each claim of a text, and whether it is true of a picture."""
    return [(fact, fact.is_true_of(scene)) for fact in facts_in(text)]


def facts_of(scene: Scene) -> list[Fact]:
    """Return what a complete caption says: the number of things, the number of each kind, and where each thing is."""
    kinds = Counter((thing.colour, thing.shape) for thing in scene.things)
    counts = [Fact(count, *kind) for kind, count in sorted(kinds.items())]
    placed = {Fact(None, thing.colour, thing.shape, scene.place(thing)): None for thing in scene.things}
    return [Fact(len(scene.things)), *counts, *placed]


def caption(scene: Scene) -> str:
    return " ".join(fact.text() for fact in facts_of(scene))


def falsified(fact: Fact, scene: Scene, rng: random.Random) -> tuple[Fact, str]:
    """Return a similar claim that is false of a picture, and which word was changed: count, colour, shape or place."""
    options = []
    if fact.count is not None:
        options += [(replace(fact, count=fact.count + more), "count") for more in (-1, 1) if fact.count + more > 0]
    if fact.colour:
        options += [(replace(fact, colour=colour), "colour") for colour in PAINT]
    if fact.place:
        options += [(replace(fact, place=place), "place") for place in PLACES]
    by_word: dict[str, list[Fact]] = {}
    for changed, word in options:
        if not changed.is_true_of(scene):
            by_word.setdefault(word, []).append(changed)
    if not by_word:  # a claim such as "there is a circle", without a word to change
        return replace(fact, count=fact.counted(scene) + 1), "count"
    word = rng.choice(sorted(by_word))
    return rng.choice(by_word[word]), word
