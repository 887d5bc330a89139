"""Finds the words of a caption that surely stand for boxes of its picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vlmdata.grounding.scene import Scene
from vlmdata.text.object_names import TOKEN, UNCHANGED, Mention, ObjectNames, tokens_of

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
COUNTS = {**{word: number for number, word in enumerate(NUMBERS, 2)}, "both": 2, "dozen": 12}
ARTICLES = {"a", "an", "the"}
NEGATIONS = {"no", "not", "without", "never", "neither", "nor", "none", "cannot"}
_OTHERS = """another other some many several each every either one any of few fewer most more less half dozens hundred hundreds
    thousand thousands"""
OTHERS = frozenset(_OTHERS.split()) | NEGATIONS
_FOLLOWERS = """is are was has have with and or on in at by near next to of from for under over behind beside inside into onto
    above below across along around through against between while as that which who it its during off up down out together sits
    stands lies walks runs holds looks"""
FOLLOWERS = frozenset(_FOLLOWERS.split())
JOINS = frozenset("-\u2010\u2011/&_'\u2019")  # make one word of two: "dog-friendly", "cat/dog", "the dogs' bowl"
LOOK_BACK = 4  # words before a noun among which a number or a negation counts: "two small dogs", "not a single dog"


class Words(NamedTuple):
    """Words of a caption, `caption[start:end]`, and the numbers of the boxes for which they stand."""

    start: int
    end: int
    boxes: tuple[int, ...]


def spans_in(caption: str, scene: Scene, names: ObjectNames) -> list[Words]:
    """Return the words of a caption that surely stand for all boxes of a name, or for its only box.

    A singular stands for a box if its name has only one, also with a narrower word such as "puppy". A plural stands for all
    boxes of its name if there are several; a number before it must be theirs. Names that a caption has twice, words before
    another noun ("horse trailer"), parts of longer words ("dog-friendly", "the dog's") and words behind "no", "another", "some"
    and the like are left out, also with other words between ("two small dogs", "without any small dogs").
    """
    places = list(TOKEN.finditer(caption))
    tokens = tokens_of(caption)
    if len(tokens) != len(places):  # folding the case of the text has changed its words
        return []
    found = [one for one in names.mentions(tokens) if len(_present(one, scene)) == 1]
    counts = Counter(next(iter(_present(one, scene))) for one in found)
    spans: list[Words] = []
    for one in found:
        (name,) = _present(one, scene)
        before = tokens[one.start - 1] if one.start else ""
        if name not in scene.complete or counts[name] != 1 or before in OTHERS or not _ends(caption, tokens, places, one.end):
            continue
        if caption[places[one.start].start() - 1 : places[one.start].start()] in JOINS:
            continue
        boxes = tuple(thing.number for thing in scene.complete[name])
        further = _further(caption, tokens, places, one.start)
        if _is_other(one, further, len(boxes)):
            continue
        if _agrees(one, before, len(boxes), " ".join(tokens[one.start : one.end])):
            start = one.start - 1 if before in ARTICLES or before in COUNTS else one.start
            spans.append(Words(places[start].start(), places[one.end - 1].end(), boxes))
    return spans


def named_in(captions: Iterable[str], names: ObjectNames) -> set[str]:
    """Return the names of all objects that captions name in any way."""
    return {name for caption in captions for one in names.mentions(tokens_of(caption)) for name in one.names}


def _present(mention: Mention, scene: Scene) -> frozenset[str]:
    return mention.names & scene.labels


def _number(word: str) -> int | None:
    return COUNTS.get(word, int(word) if word.isascii() and word.isdigit() and len(word) < 4 else None)


def _further(caption: str, tokens: Sequence[str], places: Sequence[re.Match[str]], start: int) -> list[str]:
    """Return up to four words before the noun at token `start`, the nearest first, with only spaces between them."""
    found: list[str] = []
    for at in range(start - 1, max(start - 1 - LOOK_BACK, -1), -1):
        if caption[places[at].end() : places[at + 1].start()].strip():
            break
        found.append(tokens[at])
    return found


def _is_other(mention: Mention, further: Sequence[str], boxes: int) -> bool:
    """Return whether the words before a noun say that it is not these boxes: it is absent, others, or of another number."""
    if any(word in NEGATIONS or word.endswith("n't") for word in further):
        return True
    for word in further[1:]:  # `_agrees` has looked at the nearest one
        if word in FOLLOWERS or word in ARTICLES:
            return False
        number = _number(word)
        if word in OTHERS or (number is not None and mention.is_plural and number != boxes):
            return True
    return False


def _agrees(mention: Mention, before: str, boxes: int, word: str) -> bool:
    number = _number(before)
    if number is not None:
        return mention.is_plural and mention.is_whole and number == boxes
    if word in UNCHANGED:
        return mention.is_whole and (boxes == 1 or before not in ("a", "an"))
    if mention.is_plural:
        return mention.is_whole and boxes > 1 and before not in ("a", "an")
    return boxes == 1


def _ends(caption: str, tokens: Sequence[str], places: Sequence[re.Match[str]], end: int) -> bool:
    """Return whether the noun ends at token `end`: a mark, a verb or a small word follows, or nothing.

    It does not end where a character joins it to what follows, or where it has a possessive.
    """
    if places[end - 1][0][-2:].casefold() in ("'s", "\u2019s") or caption[places[end - 1].end() :][:1] in JOINS:
        return False
    if end == len(tokens):
        return True
    between = caption[places[end - 1].end() : places[end].start()]
    return bool(between.strip()) or tokens[end] in FOLLOWERS or tokens[end].endswith(("ing", "ed"))
