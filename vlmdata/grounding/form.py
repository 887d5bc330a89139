"""What a family of models needs to say about its form of grounded text. Each file of `forms` has one form, named `FORM`.

A form writes spans that are already in the model's picture, and reads a model's text. What it reads may be hostile: a reader
never raises, takes time in proportion to the text, and refuses numbers that are no box of the picture.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlmdata.grounding.scales import Numbers, Scale
from vlmdata.grounding.spans import Box, Task

MOST_CHARACTERS = 1_000_000  # of a text that is read; the rest is cut


@dataclass(frozen=True)
class Piece:
    """A piece of a written text. `is_markup`: vlmdata wrote it, so its control tokens are control tokens.

    Everything else is ordinary text, whatever it looks like. Coordinates and JSON that are ordinary text for the model are
    no markup.
    """

    text: str
    is_markup: bool


@dataclass(frozen=True)
class Part:
    """A span in the model's picture. `before` is the text between the span before and this one."""

    before: str
    phrase: str
    boxes: tuple[Numbers, ...]  # of the form's scale


@dataclass(frozen=True)
class Found:
    """A phrase of a read text and its boxes, as fractions of the picture. A box of a form that gives points has no area."""

    phrase: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class ReadText:
    """A model's text without markup, and the phrases that have boxes."""

    text: str
    found: tuple[Found, ...]


class Form(ABC):
    """The form of a family of models."""

    scale: ClassVar[Scale]
    control: ClassVar[re.Pattern[str]]  # the control tokens, or else the beginning of what `read` takes for boxes
    has_tokens: ClassVar[bool] = True  # whether the markup is control tokens. False: it is ordinary text for the model

    @abstractmethod
    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        """Return a phrase with its boxes, of which there is at least one, within a text. The phrase may be empty."""

    @abstractmethod
    def read(self, text: str, width: int, height: int) -> ReadText:
        """Return what a model wrote about a picture of this size."""

    def name(self, phrase: str) -> list[Piece]:
        """Return the name of an object in a question for its place."""
        return [Piece(phrase, False)]

    def disarmed(self, text: str) -> str:
        """Return words of the data so that `read` takes nothing in them for markup: `<box>` becomes `< box>`."""
        return self.control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def text(self, parts: Sequence[Part], end: str) -> list[Piece]:
        """Return a text with boxes behind words. A part without boxes is words alone."""
        pieces: list[Piece] = []
        for part in parts:
            pieces.append(Piece(part.before, False))
            pieces += self.mention(part.phrase, part.boxes) if part.boxes else [Piece(part.phrase, False)]
        return [*pieces, Piece(end, False)]

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        """Return a question: its own words, with the names of objects (detect, refer) or with boxes (describe)."""
        if task == "describe":
            return self.text(parts, end)
        pieces = [piece for part in parts for piece in (Piece(part.before, False), *self.name(part.phrase))]
        return [*pieces, Piece(end, False)]

    def detections(self, parts: Sequence[Part]) -> list[Piece]:
        """Return the answer that lists objects. Each part has a box."""
        return joined_pieces([self.mention(part.phrase, part.boxes) for part in parts], Piece(", ", False))

    def places(self, parts: Sequence[Part]) -> list[Piece]:
        """Return the answer to a question for the place of an object. Each part has a box."""
        return self.detections(parts)

    def nothing(self, text: str) -> list[Piece]:
        """Return the answer to a question for objects that are not in the picture. `text` says so in words."""
        return [Piece(text, False)]


def joined_pieces(groups: Sequence[Sequence[Piece]], between: Piece) -> list[Piece]:
    """Return the pieces of all groups, with `between` between two groups."""
    pieces: list[Piece] = []
    for group in groups:
        pieces += [between, *group] if pieces else group
    return pieces


def without_tags(phrase: str) -> str:
    """Return a phrase on one line and without `<` and `>`, so that it cannot end the tag in which it stands."""
    return " ".join(re.sub("[<>]", " ", phrase).split())


def without_brackets(phrase: str) -> str:
    """Return a phrase on one line with round brackets in place of square ones, which would begin a box."""
    return " ".join(phrase.translate(str.maketrans("[]", "()")).split())


def boxes_of(scale: Scale, groups: Iterable[Sequence[float]], width: int, height: int) -> tuple[Box, ...]:
    """Return the boxes of groups of numbers; those that are no box of the picture are left out."""
    found = (scale.decode(group, width, height) for group in groups)
    return tuple(box for box in found if box is not None)


def scan(
    text: str, pattern: re.Pattern[str], read: Callable[[re.Match[str]], tuple[str, Found | None]], control: re.Pattern[str]
) -> ReadText:
    """Return what `read` makes of each match: its words for the plain text, and what was found.

    What `control` matches outside of these matches is removed. The pattern must need time in proportion to the text.
    """
    kept: list[str] = []
    found: list[Found] = []
    at = 0
    text = text[:MOST_CHARACTERS]
    for match in pattern.finditer(text):
        words, one = read(match)
        kept += [control.sub("", text[at : match.start()]), words]
        found += [one] if one is not None and one.boxes else []
        at = match.end()
    return ReadText("".join([*kept, control.sub("", text[at:])]).strip(), tuple(found))
