"""Reject texts by their number of words and characters."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.row import drop_texts, flatten, numbers
from vlmdata.step import Step

FASTTEXT_WORD = re.compile(r"[^ \n\r\t\v\f\0]+|\n")  # Dictionary::readWord, which `fasttext.tokenize` calls


@dataclass(frozen=True, kw_only=True)
class TextLength(Step):
    """Reject a text with too few or too many words (split at white space, as `str.split`) or characters."""

    reads: ClassVar = ("texts",)

    min_words: int = 3  # DataComp's basic filter: more than two
    max_words: int = 0  # 0: any
    min_chars: int = 6  # DataComp's basic filter: more than five
    max_chars: int = 0  # 0: any
    words: Literal["python", "fasttext"] = "python"  # fasttext: parted by its seven characters; the end of a line is a word too

    def decide(self, rows: pa.Table) -> pa.Table:
        texts = flatten(rows, "texts").field("text")
        split = str.split if self.words == "python" else FASTTEXT_WORD.findall
        words = np.array([len(split(t)) if t is not None else np.nan for t in texts.to_pylist()], dtype=np.float64)
        chars = numbers(pc.utf8_length(texts))
        for reason, value, low, high in (
            ("words", words, self.min_words, self.max_words),
            ("chars", chars, self.min_chars, self.max_chars),
        ):
            rows = drop_texts(rows, value < low, self.name, reason=f"min_{reason}", value=value, threshold=low)
            if high:
                rows = drop_texts(rows, value > high, self.name, reason=f"max_{reason}", value=value, threshold=high)
        return rows
