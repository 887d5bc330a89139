"""Captions that models write: which answers are accepted, and how a row gets them as alternatives of its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vlmdata.fields import aligned_origins
from vlmdata.generation.positions import list_lengths, with_positions
from vlmdata.row import TEXT, flatten, in_one, set_column
from vlmdata.text.obelics_metrics import word_repetition, words_of
from vlmdata.text.words import LETTERS_A_WORD, count_words, has_unspaced

MOST_CHARS = 20_000  # a longer answer is rejected unread
GRAM = 4  # words; with 5, as in OBELICS, a loop of a few words in a short caption has too few n-grams
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»"}
REFUSALS = (
    *("I'm sorry", "I am sorry", "Sorry,", "I apologize", "As an AI", "I cannot", "I can't", "I can not"),
    *("I'm unable", "I am unable", "I'm not able", "I am not able", "Unfortunately,"),
)


@dataclass(frozen=True)
class Rules:
    """Limits of accepted captions. `refusals` are starts of an answer, in any case."""

    min_words: int
    max_words: int
    max_repeats: float
    refusals: tuple[str, ...]


class Rejection(NamedTuple):
    """The reason why an answer is not accepted, with the measured value and the limit if the reason has them."""

    reason: str
    value: float = np.nan
    threshold: float = np.nan


def cleaned(text: str) -> str:
    """Return a text on one line. White space and control characters become single spaces.

    Quotation marks around the whole text are removed, unless it holds more of them.
    """
    text = " ".join(_CONTROLS.sub(" ", text).split())
    end = _QUOTES.get(text[:1])
    inside = text[1:-1]
    if end and len(text) > 1 and text[-1] == end and not {text[0], end} & set(inside):
        text = inside.strip()
    return text


def shortened(text: str, words: int) -> str:
    """Return the first `words` words of a text on one line, and at most ten times as many characters."""
    return " ".join(_CONTROLS.sub(" ", text).split(None, words)[:words])[: 10 * words].rstrip()


def repeats(text: str) -> float:
    """Return the share of 4-grams of words that occur more than once, in [0, 1].

    In scripts without spaces, n-grams of eight letters are counted.
    """
    if has_unspaced(text):
        return word_repetition([letter for letter in text if not letter.isspace()], GRAM * LETTERS_A_WORD)
    return word_repetition(words_of(text), GRAM)


def judged(answers: Sequence[Mapping[str, Any]], known: Iterable[str], rules: Rules) -> list[str | Rejection]:
    """Return for each answer its caption, or why it is not accepted.

    `answers` are dicts with the fields of ANSWER. A caption that equals one of `known` or an earlier caption, apart from case
    and white space, is a `duplicate`. An answer that failed has the failure as the reason.
    """
    seen = {_same(text) for text in known}
    found: list[str | Rejection] = []
    for answer in answers:
        one = _judged(answer, rules)
        if isinstance(one, str):
            if _same(one) in seen:
                one = Rejection("duplicate")
            else:
                seen.add(_same(one))
        found.append(one)
    return found


def _judged(answer: Mapping[str, Any], rules: Rules) -> str | Rejection:
    if answer["failure"] or answer["finish"] in ("length", "refusal", "filter"):
        return Rejection(answer["failure"] or answer["finish"])
    text = answer["text"] or ""
    if len(text) > MOST_CHARS:
        return Rejection("too_long", len(text), MOST_CHARS)
    caption = cleaned(text)
    if not any(map(str.isalnum, caption)):
        return Rejection("empty")
    if refuses(caption, rules.refusals):
        return Rejection("refusal")
    words = count_words(caption)
    if words < rules.min_words:
        return Rejection("min_words", words, rules.min_words)
    if words > rules.max_words:
        return Rejection("max_words", words, rules.max_words)
    share = repeats(caption)
    return Rejection("max_repeats", share, rules.max_repeats) if share > rules.max_repeats else caption


def beginning(text: str) -> str:
    """Return the start of a text as refusals are compared: in lower case, without quotation marks before it."""
    return text[:200].lstrip('"“„«*_ ').replace("’", "'").casefold()


def refuses(text: str, refusals: Iterable[str]) -> bool:
    """Return whether a text begins with one of the refusals, in any case."""
    start = beginning(text.lstrip())
    return any(start.startswith(beginning(refusal)) for refusal in refusals)


def _same(text: str) -> str:
    return cleaned(text).casefold()


def is_pair(rows: pa.Table) -> np.ndarray:
    """Return a bool per row: true if it was read with one image and at most one text, and is not a conversation.

    Rejected images and texts count, so that the kind of a row does not depend on thresholds.
    """
    images, texts = (flatten(rows, column) for column in ("images", "texts"))
    counts = [np.bincount(flat.parents[_valid(flat.items)], minlength=len(rows)) for flat in (images, texts)]
    return (counts[0] == 1) & (counts[1] <= 1) & ~_valid(in_one(rows["roles"]))


def own_text(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the first text of a row, as a dict with the fields of TEXT, or None if it has no text."""
    return next((text for text in row["texts"] or () if text is not None), None)


def captions_before(text: Mapping[str, Any] | None, origin: str) -> list[str]:
    """Return a text and its alternatives before the first one that the step `origin` wrote."""
    if text is None:
        return []
    others = text["alternatives"] or []
    origins = aligned_origins(others, text["origins"])
    return [text["text"] or "", *(others[: origins.index(origin)] if origin in origins else others)]


def with_captions(rows: pa.Table, captions: Sequence[Sequence[str]], origin: str, places: np.ndarray) -> pa.Table:
    """Return the rows with captions added as alternatives of each row's text. `captions` has a list per row, most often empty.

    `origin` is the name of the step that wrote them. `places`, a bool per row, marks the rows that must have a text. If one has
    none, it gets a position with an empty text at its end, and a null at the end of every list with one value per position.
    Whether it gets captions does not matter, so that positions do not depend on thresholds.
    """
    lacks = places & (np.bincount(_texts_of(rows), minlength=len(rows)) == 0)
    gets = np.array([bool(some) for some in captions], bool)
    if not (lacks | gets).any():
        return rows
    lengths = list_lengths(in_one(rows["images"]))
    values: list[Any] = []
    for texts, some, is_lacking, length in zip(in_one(rows["texts"]).to_pylist(), captions, lacks, lengths, strict=True):
        if is_lacking:
            texts = [*[None] * length, {"text": ""}]
        if some:
            _add(next(text for text in texts if text is not None), some, origin)
        values.append(texts)
    rows = with_positions(rows, lacks.astype(np.int64))
    return set_column(rows, "texts", pa.array(values, pa.list_(TEXT)))


def _add(text: dict[str, Any], captions: Sequence[str], origin: str) -> None:
    others = text.get("alternatives") or []
    origins = aligned_origins(others, text.get("origins"))
    text |= {"alternatives": [*others, *captions], "origins": [*origins, *[origin] * len(captions)]}


def _texts_of(rows: pa.Table) -> np.ndarray:
    """Return the row of each text."""
    flat = flatten(rows, "texts")
    return flat.parents[_valid(flat.items)]


def _valid(array: pa.Array) -> np.ndarray:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
