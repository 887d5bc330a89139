"""Finds the words of a caption that surely stand for boxes of its picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vlmdata.grounding.scene import Scene
from vlmdata.text.object_names import TOKEN, UNCHANGED, Mention, ObjectNames, tokens_of

COUNTS = dict(zip(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), range(2, 11), strict=True))
ARTICLES = {"a", "an", "the"}
OTHERS = {"another", "other", "no", "not", "without", "some", "many", "several", "each", "every", "one", "any", "of"}
_FOLLOWERS = """is are was has have with and or on in at by near next to of from for under over behind beside inside into onto
    above below across along around through against between while as that which who it its during off up down out together sits
    stands lies walks runs holds looks"""
FOLLOWERS = frozenset(_FOLLOWERS.split())


class Words(NamedTuple):
    """Words of a caption, `caption[start:end]`, and the numbers of the boxes for which they stand."""

    start: int
    end: int
    boxes: tuple[int, ...]


def spans_in(caption: str, scene: Scene, names: ObjectNames) -> list[Words]:
    """Return the words of a caption that surely stand for all boxes of a name, or for its only box.

    A singular stands for a box if its name has only one, also with a narrower word such as "puppy". A plural stands for all
    boxes of its name if there are several; a number before it must be theirs. Names that a caption has twice, words before
    another noun ("horse trailer") and words behind "no", "another", "some" and the like are left out.
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
        boxes = tuple(thing.number for thing in scene.complete[name])
        if _agrees(one, before, len(boxes), " ".join(tokens[one.start : one.end])):
            start = one.start - 1 if before in ARTICLES or before in COUNTS else one.start
            spans.append(Words(places[start].start(), places[one.end - 1].end(), boxes))
    return spans


def named_in(captions: Iterable[str], names: ObjectNames) -> set[str]:
    """Return the names of all objects that captions name in any way."""
    return {name for caption in captions for one in names.mentions(tokens_of(caption)) for name in one.names}


def _present(mention: Mention, scene: Scene) -> frozenset[str]:
    return mention.names & scene.labels


def _agrees(mention: Mention, before: str, boxes: int, word: str) -> bool:
    number = COUNTS.get(before, int(before) if before.isascii() and before.isdigit() and len(before) < 4 else None)
    if number is not None:
        return mention.is_plural and mention.is_whole and number == boxes
    if word in UNCHANGED:
        return mention.is_whole and (boxes == 1 or before not in ("a", "an"))
    if mention.is_plural:
        return mention.is_whole and boxes > 1 and before not in ("a", "an")
    return boxes == 1


def _ends(caption: str, tokens: Sequence[str], places: Sequence[re.Match[str]], end: int) -> bool:
    """Return whether the noun ends at token `end`: a mark, a verb or a small word follows, or nothing."""
    if end == len(tokens):
        return True
    between = caption[places[end - 1].end() : places[end].start()]
    return bool(between.strip()) or tokens[end] in FOLLOWERS or tokens[end].endswith(("ing", "ed"))
