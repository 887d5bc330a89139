"""Compares the objects that a question and its answer state with the captions and boxes of the picture.

The rules read words, not grammar. Sentences with a negation or with a word such as "might" or "usually" state nothing about
the picture, so they are passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vlmdata.text.object_names import Mention, ObjectNames, tokens_of

MOST_COUNTED = 10  # boxes of an object; COCO's annotators draw one box around a crowd, so greater numbers are not compared
GAP = 4  # tokens from a number to the end of the words before its noun, as in "two small brown dogs"
NUMBERS = {
    word: value
    for value, word in enumerate(
        ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}
NEGATED = {"no", "not", "never", "without", "none", "neither", "nor", "nobody", "nothing", "cannot"}
_HYPOTHETICAL = """could would may might should must if whether perhaps maybe possibly probably likely usually often typically
    generally sometimes commonly like similar resembles such instead imagine suppose need needs want wants"""
HYPOTHETICAL = set(_HYPOTHETICAL.split())
_PASSED_BY = "of and or to in on at with by for from than the a an is are was were per percent"
PASSED_BY = set(_PASSED_BY.split())
_VAGUE = "least most than about around approximately roughly over under nearly almost another other first second"
VAGUE = set(_VAGUE.split())
_OF_PICTURE = "are is there in the this picture image photo photograph scene can be seen you see visible do we total"
OF_PICTURE = set(_OF_PICTURE.split())
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_CLAUSE = re.compile(r"[,;:()]|\s[-–—]\s")


class Known(NamedTuple):
    """What is known about a picture: its captions, and the label of each box."""

    captions: Sequence[str]
    labels: Sequence[str]


class Count(NamedTuple):
    """A number of objects that a clause states. `is_total` is true if it speaks of all such objects in the picture."""

    value: int
    mention: Mention
    is_total: bool


def absent_objects(question: str, answer: str, known: Known, names: ObjectNames) -> list[str]:
    """Return the objects that a turn states and that neither a caption nor a box names, sorted."""
    supported = {name for label in known.labels for name in names.named(label)}
    supported |= {
        one for text in known.captions for found in names.mentions(tokens_of(text), known.labels) for one in found.names
    }
    supported |= {" ".join(tokens_of(label)) for label in known.labels}
    stated = [found for text in _statements(question, answer) for found in names.mentions(tokens_of(text), known.labels)]
    return sorted({min(one.names) for one in stated if not one.names & supported})


def wrong_count(question: str, answer: str, known: Known, names: ObjectNames) -> tuple[int, int] | None:
    """Return the first stated number of objects that the boxes contradict, with the number of boxes, or None.

    A number is wrong if it exceeds the number of boxes, or if it speaks of all objects of a kind and differs from it. A number
    that a caption states for the same objects is never wrong, and objects without a box or with more than ten are not compared.
    """
    boxes: Counter[str] = Counter()
    for label in known.labels:
        boxes.update(names.named(label) | {" ".join(tokens_of(label))})
    if not boxes:
        return None
    said = {(one.value, name) for text in known.captions for one in _counts(text, known, names) for name in one.mention.names}
    found = [*_asked(question, answer, known, names)]
    stated = _sentences(answer)
    if not (stated and _is_negated(stated[0])):  # else the answer denies what the question says
        stated.insert(0, question)
    found += [one for text in stated if not _is_hypothetical(text) for one in _counts(text, known, names)]
    for one in found:
        there = sum(boxes[name] for name in one.mention.names)
        if not 0 < there <= MOST_COUNTED or any((one.value, name) in said for name in one.mention.names):
            continue
        if one.value > there or (one.is_total and one.value != there):
            return one.value, there
    return None


def _sentences(text: str) -> list[str]:
    return [one for one in _SENTENCE.split(text) if one]


def _is_hypothetical(text: str) -> bool:
    return not HYPOTHETICAL.isdisjoint(tokens_of(text))


def _is_negated(text: str) -> bool:
    tokens = tokens_of(text)
    return any(one in NEGATED or one.endswith("n't") for one in tokens)


def _statements(question: str, answer: str) -> Iterator[str]:
    """Yield the sentences of a turn that state something about the picture.

    A question does so too ("What is the dog doing?"), unless the answer denies it or it names a choice ("a dog or a cat?").
    """
    sentences = _sentences(answer)
    is_denied = bool(sentences) and (_is_negated(sentences[0]))
    if not is_denied and not _is_hypothetical(question) and "or" not in tokens_of(question):
        yield question
    for number, text in enumerate(sentences):
        text = re.sub(r"^\W*(?:no|yes)\b\W*", "", text, flags=re.IGNORECASE) if number == 0 else text
        if not _is_negated(text) and not _is_hypothetical(text):
            yield text


def _counts(text: str, known: Known, names: ObjectNames) -> Iterator[Count]:
    """Yield the numbers of objects that the clauses of a text state."""
    for clause in (part for sentence in _sentences(text) for part in _CLAUSE.split(sentence)):
        tokens = tokens_of(clause)
        mentions = names.mentions(tokens, known.labels)
        for at, value in ((at, _number(token)) for at, token in enumerate(tokens)):
            if value is None or (at and tokens[at - 1] in VAGUE):
                continue
            one = next((found for found in mentions if at < found.start <= at + GAP), None)
            between = tokens[at + 1 : one.start] if one else []
            if one is None or any(word in PASSED_BY | VAGUE or _number(word) is not None for word in between):
                continue
            if value != 0 and one.is_plural != (value != 1):  # "two dog beds" says nothing about dogs
                continue
            begins = tokens[:at] in (["there", "are"], ["there", "is"])
            is_total = begins and not between and one.is_whole and set(tokens[one.end :]) <= OF_PICTURE
            yield Count(value, one, is_total)


def _asked(question: str, answer: str, known: Known, names: ObjectNames) -> Iterator[Count]:
    """Yield the first number of the answer, if the question is how many objects of a kind the picture shows."""
    tokens = tokens_of(question)
    if tokens[:2] != ["how", "many"]:
        return
    one = next((found for found in names.mentions(tokens, known.labels) if found.start == 2), None)
    values = (_number(token) for token in tokens_of((_sentences(answer) or [""])[0]))
    value = next((value for value in values if value is not None), None)
    if one and one.is_whole and value is not None and set(tokens[one.end :]) <= OF_PICTURE:
        yield Count(value, one, is_total=True)


def _number(token: str) -> int | None:
    return int(token) if token.isascii() and token.isdigit() and len(token) <= 3 else NUMBERS.get(token)
