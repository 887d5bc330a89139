"""Reject texts that repeat themselves: the same words, the same phrases, the same character."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_texts, flatten
from vlmdata.step import RecipeError, Step
from vlmdata.text.obelics_metrics import char_repetition, word_repetition, words_of
from vlmdata.text.words import UNSPACED, count_words, has_unspaced

_RUN = re.compile(r"(\S)\1*")
_UNSPACED = re.compile(f"[{UNSPACED}]+")
LONG_WORDS = 3  # letters from which a word counts as repeated: articles come often


@dataclass(frozen=True, kw_only=True)
class TextRepetition(Step):
    """Reject a text by the shares, in [0, 1], of repeated 10-grams of characters and 5-grams of words, and of one word.

    A caption is too short for n-grams of words: "sale sale sale shoes" is caught by the share of its commonest word, which in
    scripts without blanks between words, as Chinese, is that of its commonest two letters.
    """

    id: ClassVar = "vlmdata.steps.text_repetition"
    reads: ClassVar = ("texts",)

    max_chars: float = 0.1  # of 10-grams of characters that are repeats; OBELICS, paragraphs
    max_words: float = 0.1  # of 5-grams of words; OBELICS, paragraphs (of documents 0.2)
    max_one_word: float = 0.5  # of the commonest word of three letters or more, in texts of four words or more
    max_run: int = 8  # times one character may stand in a row: "!!!!!!!!!"

    def check(self) -> None:
        for name in ("max_chars", "max_words", "max_one_word"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{self.name}.{name} = {getattr(self, name)}: a share lies in [0, 1]")

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        living = flat.alive()
        texts = [text if lives else None for text, lives in zip(flat.field("text").to_pylist(), living, strict=True)]
        measures = np.array([repetition(text) if text else (np.nan,) * 4 for text in texts], dtype=np.float64).reshape(-1, 4)
        limits = {"max_chars": self.max_chars, "max_words": self.max_words}
        limits |= {"max_one_word": self.max_one_word, "max_run": self.max_run}
        for number, (reason, limit) in enumerate(limits.items()):
            value = measures[:, number]
            rows = drop_texts(rows, value > limit, self.name, reason=reason, value=value, threshold=limit)
        return rows


def repetition(text: str) -> tuple[float, float, float, int]:
    """Return the repeated shares of 10-grams of characters, 5-grams of words, the commonest word, and the longest run."""
    words = words_of(text)
    run = max((match.end() - match.start() for match in _RUN.finditer(text)), default=0)
    return char_repetition(text), word_repetition(words), _one_word(text, words), run


def _one_word(text: str, words: list[str]) -> float:
    """Return the share of the commonest word of three letters or more, 0 in texts of under four words."""
    total = len(words)
    long = Counter(word for word in words if len(word) >= LONG_WORDS)
    if has_unspaced(text):
        total = count_words(text)
        long = Counter(word for word in words if len(word) >= LONG_WORDS and not has_unspaced(word))
        long.update(run[at : at + 2] for run in _UNSPACED.findall(text) for at in range(len(run) - 1))
    return min(1.0, max(long.values()) / total) if long and total >= 4 else 0.0
