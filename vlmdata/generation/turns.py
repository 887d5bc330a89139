"""Reads the turns of a model's answer about a picture, and decides which of them are accepted."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlmdata.generation.captions import MOST_CHARS, Rejection, refuses, repeats
from vlmdata.generation.instruct_prompts import CONVERSATION, DETAIL, REASONING
from vlmdata.generation.object_claims import KnownObjects
from vlmdata.generation.question_form import Turn, plain_answer, read_turns
from vlmdata.text.obelics_metrics import words_of

SOURCE_WORDS = (
    *("caption", "bounding box", "box coordinates", "coordinate", "description", "given text", "provided text"),
    *("given sentence", "provided sentence", "given information", "provided information", "according to the sentences"),
)
UNSURE = (
    *("cannot be determined", "can't be determined", "can not be determined", "could not be determined", "cannot determine"),
    *("can't determine", "impossible to determine", "not possible to determine", "difficult to determine", "hard to determine"),
    *(
        "hard to tell",
        "difficult to tell",
        "impossible to tell",
        "cannot tell",
        "can't tell",
        "hard to say",
        "difficult to say",
    ),
    *("not clear", "unclear", "not specified", "not mentioned", "not stated", "not provided", "no information"),
    *("not sure", "unsure", "uncertain", "unknown"),
)
COPIED = 8  # words in a row
_COORDINATES = re.compile(r"[\[(]\s*\d*\.\d+\s*,|(?<![\d.])[01]?\.\d{3}(?!\d)")
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)>", re.IGNORECASE)
_REFERS_BACK = re.compile(r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers)\b", re.IGNORECASE)


@dataclass(frozen=True)
class TurnRules:
    """What is not accepted. The texts are compared in any case."""

    refusals: tuple[str, ...]
    source_words: tuple[str, ...]
    unsure: tuple[str, ...]
    max_repeats: float
    examples: frozenset[tuple[str, ...]]  # all runs of COPIED words of the answers of examples


class Judged(NamedTuple):
    """A turn of an answer of a kind, and why it is not accepted or None. An answer that cannot be read has no turn."""

    kind: str
    turn: Turn | None
    rejection: Rejection | None


def runs_of(texts: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Return all runs of COPIED words of the texts."""
    return frozenset(run for text in texts for run in _runs(text))


def _runs(text: str) -> Iterable[tuple[str, ...]]:
    words = words_of(text)
    return (tuple(words[at : at + COPIED]) for at in range(len(words) - COPIED + 1))


def judged(
    kind: str, answer: Mapping[str, Any], question: str, known: KnownObjects | None, rules: TurnRules, asked: set[str]
) -> list[Judged]:
    """Return the turns of an answer, a dict with the fields of ANSWER, with a verdict for each.

    `question` is the question of a detailed description. If `known` is None, objects and numbers are not checked. `asked` holds
    the questions of accepted turns about the row, and the function adds to it.
    """
    turns, reason = _read(kind, answer, question, rules)
    found: list[Judged] = []
    is_copied = any(run in rules.examples for turn in turns for run in _runs(turn.answer))
    is_after_rejected = False
    for turn in turns:
        rejection = Rejection("copied") if is_copied else _rejected(kind, turn, known, rules, asked)
        if rejection is None and is_after_rejected and _REFERS_BACK.search(turn.question):
            rejection = Rejection("refers_back")
        is_after_rejected = rejection is not None
        if rejection is None:
            asked.add(turn.question.casefold())
        found.append(Judged(kind, turn, rejection))
    return [*found, *([Judged(kind, None, reason)] if reason else [])]


def _read(kind: str, answer: Mapping[str, Any], question: str, rules: TurnRules) -> tuple[Sequence[Turn], Rejection | None]:
    """Return the turns of an answer, and why it, or its end, cannot be read."""
    if answer["failure"] or answer["finish"] in ("refusal", "filter"):
        return [], Rejection(answer["failure"] or answer["finish"])
    text, is_cut = answer["text"] or "", answer["finish"] == "length"
    if len(text) > MOST_CHARS:
        return [], Rejection("too_long", len(text), MOST_CHARS)
    if refuses(text, rules.refusals):
        return [], Rejection("refusal")
    if kind == DETAIL:
        said, fault = plain_answer(text)
        turns = [] if fault else [Turn(question, said)]
    else:
        turns, fault = read_turns(text, is_cut=is_cut)
    if is_cut and (kind == DETAIL or fault == "length"):
        return (turns if kind == CONVERSATION else []), Rejection("length")
    if kind == REASONING and len(turns) > 1:
        return [], Rejection("bad_form")
    return turns, Rejection(fault) if fault else None


def _rejected(kind: str, turn: Turn, known: KnownObjects | None, rules: TurnRules, asked: set[str]) -> Rejection | None:
    """Return why a turn is not accepted, or None."""
    question = "" if kind == DETAIL else turn.question  # the question of a description is not the model's
    both = f"{question}\n{turn.answer}"
    if _PLACEHOLDER.search(both):
        return Rejection("placeholder")
    if refuses(turn.answer, rules.refusals):
        return Rejection("refusal")
    if _holds(both, rules.source_words):
        return Rejection("source_words")
    if _COORDINATES.search(both):
        return Rejection("coordinates")
    if _holds(turn.answer, rules.unsure):
        return Rejection("unsure")
    if (share := repeats(turn.answer)) > rules.max_repeats:
        return Rejection("max_repeats", share, rules.max_repeats)
    if turn.question.casefold() in asked:
        return Rejection("duplicate")
    if known is None:
        return None
    if absent := known.absent(question, turn.answer):
        return Rejection("absent_object", len(absent), 0)
    if counts := known.wrong_count(question, turn.answer):
        return Rejection("wrong_count", *map(float, counts))
    return None


def _holds(text: str, phrases: tuple[str, ...]) -> bool:
    """Return whether a text holds one of the phrases, or its plural, as whole words in any case."""
    return _pattern(phrases).search(" ".join(text.casefold().replace("’", "'").split())) is not None


@functools.lru_cache(maxsize=16)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    any_of = "|".join(re.escape(" ".join(one.casefold().split())) for one in phrases)
    return re.compile(rf"(?<!\w)(?:{any_of})(?:s|es)?(?!\w)" if phrases else r"(?!)")
