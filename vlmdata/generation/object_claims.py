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


class Count(NamedTuple):
    """A number of objects that a clause states. `is_total` is true if it speaks of all such objects in the picture."""

    value: int
    mention: Mention
    is_total: bool


class KnownObjects:
    """The objects of a picture, from its captions and the label of each of its boxes."""

    def __init__(self, captions: Sequence[str], labels: Sequence[str], names: ObjectNames) -> None:
        self._names = names.with_labels(labels)
        self._boxes: Counter[str] = Counter()
        for label in labels:
            self._boxes.update(names.named(label) | {" ".join(tokens_of(label))})
        said = [one for text in captions for one in self._names.mentions(tokens_of(text))]
        self._supported = {name for one in said for name in one.names} | self._boxes.keys()
        self._said = {
            (one.value, name) for text in captions if self._boxes for one in self._counts(text) for name in one.mention.names
        }

    def absent(self, question: str, answer: str) -> list[str]:
        """Return the objects that a turn states and that neither a caption nor a box names, sorted."""
        stated = [found for text in _statements(question, answer) for found in self._names.mentions(tokens_of(text))]
        return sorted({min(one.names) for one in stated if not one.names & self._supported})

    def wrong_count(self, question: str, answer: str) -> tuple[int, int] | None:
        """Return the first stated number of objects that the boxes contradict, with the number of boxes, or None.

        A number is wrong if it exceeds the number of boxes, or if it speaks of all objects of a kind and differs from it. A
        number that a caption states for the same objects is never wrong, and objects without a box or with more than ten are
        not compared.
        """
        if not self._boxes:
            return None
        stated = _sentences(answer)
        if not (stated and _is_negated(stated[0])):  # else the answer denies what the question says
            stated.insert(0, question)
        found = [*self._asked(question, answer)]
        found += [one for text in stated if not _is_hypothetical(text) for one in self._counts(text)]
        for one in found:
            there = sum(self._boxes[name] for name in one.mention.names)
            if not 0 < there <= MOST_COUNTED or any((one.value, name) in self._said for name in one.mention.names):
                continue
            if one.value > there or (one.is_total and one.value != there):
                return one.value, there
        return None

    def _counts(self, text: str) -> Iterator[Count]:
        """Yield the numbers of objects that the clauses of a text state."""
        for clause in (part for sentence in _sentences(text) for part in _CLAUSE.split(sentence)):
            tokens = tokens_of(clause)
            numbers = [(at, value) for at, token in enumerate(tokens) if (value := _number(token)) is not None]
            mentions = self._names.mentions(tokens) if numbers else []
            for at, value in numbers:
                one = next((found for found in mentions if at < found.start <= at + GAP), None)
                if one is None or (at and tokens[at - 1] in VAGUE):
                    continue
                between = tokens[at + 1 : one.start]
                if any(word in PASSED_BY | VAGUE or _number(word) is not None for word in between):
                    continue
                if value != 0 and one.is_plural != (value != 1):  # "two dog beds" says nothing about dogs
                    continue
                begins = tokens[:at] in (["there", "are"], ["there", "is"])
                is_total = begins and not between and one.is_whole and set(tokens[one.end :]) <= OF_PICTURE
                yield Count(value, one, is_total)

    def _asked(self, question: str, answer: str) -> Iterator[Count]:
        """Yield the first number of the answer, if the question is how many objects of a kind the picture shows."""
        tokens = tokens_of(question)
        if tokens[:2] != ["how", "many"]:
            return
        one = next((found for found in self._names.mentions(tokens) if found.start == 2), None)
        values = (_number(token) for token in tokens_of((_sentences(answer) or [""])[0]))
        value = next((value for value in values if value is not None), None)
        if one and one.is_whole and value is not None and set(tokens[one.end :]) <= OF_PICTURE:
            yield Count(value, one, is_total=True)


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
    is_denied = bool(sentences) and _is_negated(sentences[0])
    if not is_denied and not _is_hypothetical(question) and "or" not in tokens_of(question):
        yield question
    for number, text in enumerate(sentences):
        text = re.sub(r"^\W*(?:no|yes)\b\W*", "", text, flags=re.IGNORECASE) if number == 0 else text
        if not _is_negated(text) and not _is_hypothetical(text):
            yield text


def _number(token: str) -> int | None:
    return int(token) if token.isascii() and token.isdigit() and len(token) <= 3 else NUMBERS.get(token)
