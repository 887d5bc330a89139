"""Ratings in answers of models: grades from 1 to 5 and verdicts yes or no, from probabilities or from the written words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.generation.captions import Rejection

YES_NO = ("yes", "no")
GRADES = ("1", "2", "3", "4", "5")
UNDECIDED = "undecided"  # the model gives the words too little probability
NO_PROBABILITIES = "no_probabilities"
UNREADABLE = "unreadable"  # the words of an answer are no rating
_NAMES = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_OUT_OF = re.compile(r"(?:/|\bout of\b|\bof\b)\s*(?:5\b(?![.,]\d)|five\b)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
DIGITS = 4  # to which scores are rounded, so that the effect of a later threshold does not depend on the last bit


def probabilities(answer: Mapping[str, Any], choices: Sequence[str], min_mass: float) -> list[float] | Rejection:
    """Return the probability of each choice, or why there is none. `answer` has the fields of ANSWER.

    The reason is `undecided` if they add up to less than `min_mass` or to 0. It is `no_probabilities` if the generator gives
    none. For an answer that failed or was refused, it is the failure, `refusal` or `filter`.
    """
    if reason := _missing(answer):
        return Rejection(reason)
    found = answer["probabilities"]
    if found is None or len(found) != len(choices):
        return Rejection(NO_PROBABILITIES)
    mass = sum(found)
    if not mass > 0 or mass < min_mass:
        return Rejection(UNDECIDED, mass, min_mass)
    return list(found)


def expected_grade(found: Sequence[float]) -> float:
    """Return the mean grade, in [1, 5], by the probabilities of GRADES, which need not add up to 1."""
    return round(sum(grade * one for grade, one in enumerate(found, 1)) / sum(found), DIGITS)


def share_of_yes(found: Sequence[float]) -> float:
    """Return the probability of yes among yes and no, in [0, 1]."""
    return round(found[0] / sum(found), DIGITS)


def written_grade(answer: Mapping[str, Any]) -> float | Rejection:
    """Return the grade that an answer states, such as 3 for "Rating: 3.", "3/5" or "three", or why it states none.

    It must state one grade only. "3 or 4", "10", "4.5" and text without a grade are `unreadable`.
    """
    if reason := _missing(answer, is_written=True):
        return Rejection(reason)
    text = _OUT_OF.sub(" ", answer["text"] or "")
    numbers = {float(one.replace(",", ".")) for one in _NUMBER.findall(text)}
    numbers |= {float(_NAMES[word]) for word in _WORD.findall(text.casefold()) if word in _NAMES and not numbers}
    return numbers.pop() if len(numbers) == 1 and numbers <= {1.0, 2.0, 3.0, 4.0, 5.0} else Rejection(UNREADABLE)


def written_yes(answer: Mapping[str, Any]) -> float | Rejection:
    """Return 1 for an answer with the word yes, 0 for one with the word no. One with both or none is `unreadable`."""
    if reason := _missing(answer, is_written=True):
        return Rejection(reason)
    words = set(_WORD.findall((answer["text"] or "").casefold())) & set(YES_NO)
    return float("yes" in words) if len(words) == 1 else Rejection(UNREADABLE)


def _missing(answer: Mapping[str, Any], *, is_written: bool = False) -> str | None:
    """Return why an answer holds no rating: its failure, or how it ended."""
    ends = ("refusal", "filter", "length") if is_written else ("refusal", "filter")
    return answer["failure"] or (answer["finish"] if answer["finish"] in ends else None)
