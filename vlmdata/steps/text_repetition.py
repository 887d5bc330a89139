"""Reject texts that repeat words, phrases or characters."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_texts, flatten
from vlmdata.step import RecipeError, Step
from vlmdata.text.obelics_metrics import char_repetition, word_repetition, words_of
from vlmdata.text.words import UNSPACED, count_words, has_unspaced

_RUN = re.compile(r"(\S)\1*")
_UNSPACED = re.compile(f"[{UNSPACED}]+")
LONG_WORDS = 3  # letters; shorter words, such as articles, are not counted, because good texts repeat them


@dataclass(frozen=True, kw_only=True)
class TextRepetition(Step):
    """Reject a text if it repeats character 10-grams, word 5-grams, one word or one character too often. Shares are in [0, 1].

    Captions are often too short for word n-grams, but the share of the commonest word catches "sale sale sale shoes". In
    scripts without spaces, such as Chinese, two consecutive letters count as a word.
    """

    id: ClassVar = "vlmdata.steps.text_repetition"
    example: ClassVar = "- text_repetition: {max_one_word: 0.4, max_run: 8}"
    reads: ClassVar = ("texts",)

    max_chars: Annotated[
        float,
        Doc(
            "A text with a greater share of repeated character 10-grams is rejected.",
            unit="share of 10-grams, 0 to 1",
            source="OBELICS, paragraphs",
        ),
    ] = 0.1
    max_words: Annotated[
        float,
        Doc(
            "A text with a greater share of repeated word 5-grams is rejected.",
            unit="share of 5-grams, 0 to 1",
            source="OBELICS, paragraphs (documents: 0.2)",
        ),
    ] = 0.1
    max_one_word: Annotated[
        float,
        Doc(
            "A text is rejected if its commonest word of at least three letters has a greater share. Texts of less "
            "than four words are exempt.",
            unit="share of words, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.5
    max_run: Annotated[
        int,
        Doc(
            "A text is rejected if it repeats one character more often in a row. `!!!!!!!!!` has 9.",
            unit="characters",
            source="vlmdata's choice",
        ),
    ] = 8

    def check(self) -> None:
        for name in ("max_chars", "max_words", "max_one_word"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{self.name}.{name} must lie in [0, 1], not {getattr(self, name)}")

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        is_alive = flat.alive()
        texts = [text if lives else None for text, lives in zip(flat.field("text").to_pylist(), is_alive, strict=True)]
        measures = np.array([repetition(text) if text else (np.nan,) * 4 for text in texts], dtype=np.float64).reshape(-1, 4)
        limits = {"max_chars": self.max_chars, "max_words": self.max_words}
        limits |= {"max_one_word": self.max_one_word, "max_run": self.max_run}
        for number, (reason, limit) in enumerate(limits.items()):
            value = measures[:, number]
            rows = drop_texts(rows, value > limit, self.name, reason=reason, value=value, threshold=limit)
        return rows


def repetition(text: str) -> tuple[float, float, float, int]:
    """Return the shares of repeated character 10-grams, of repeated word 5-grams and of the commonest word, in [0, 1].

    The fourth value is the length of the longest run of one character.
    """
    words = words_of(text)
    run = max((match.end() - match.start() for match in _RUN.finditer(text)), default=0)
    return char_repetition(text), word_repetition(words), _one_word(text, words), run


def _one_word(text: str, words: list[str]) -> float:
    """Return the share of the commonest word of at least three letters, or 0 in a text of fewer than four words."""
    total = len(words)
    long = Counter(word for word in words if len(word) >= LONG_WORDS)
    if has_unspaced(text):
        total = count_words(text)
        long = Counter(word for word in words if len(word) >= LONG_WORDS and not has_unspaced(word))
        long.update(run[at : at + 2] for run in _UNSPACED.findall(text) for at in range(len(run) - 1))
    return min(1.0, max(long.values()) / total) if long and total >= 4 else 0.0
