"""Reject texts by their number of words and characters."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.parameters import Doc
from vlmdata.row import drop_texts, flatten, numbers
from vlmdata.step import Step
from vlmdata.text.words import count_words

FASTTEXT_WORD = re.compile(r"[^ \n\r\t\v\f\0]+|\n")  # the words that `fasttext.tokenize` returns
COUNTS: dict[str, Callable[[str], int]] = {
    "scripts": count_words,
    "python": lambda text: len(text.split()),
    "fasttext": lambda text: len(FASTTEXT_WORD.findall(text)),
}


@dataclass(frozen=True, kw_only=True)
class TextLength(Step):
    """Reject a text with too few or too many words or characters.

    `words: scripts` splits texts at white space. In scripts without spaces, such as Chinese, Japanese, Thai, Khmer, Lao and
    Burmese, it counts two letters as a word (`vlmdata/text/words.py`).
    """

    id: ClassVar = "vlmdata.steps.text_length"
    example: ClassVar = "- text_length: {min_words: 3, max_words: 77}"
    reads: ClassVar = ("texts",)

    min_words: Annotated[
        int, Doc("A text with fewer words is rejected.", unit="words", source="DataComp's basic filter: more than two")
    ] = 3
    max_words: Annotated[int, Doc("A text with more words is rejected. 0: no limit.", unit="words")] = 0
    min_chars: Annotated[
        int,
        Doc("A text with fewer characters is rejected.", unit="characters", source="DataComp's basic filter: more than five"),
    ] = 6
    max_chars: Annotated[int, Doc("A text with more characters is rejected. 0: no limit.", unit="characters")] = 0
    words: Annotated[
        Literal["scripts", "python", "fasttext"],
        Doc(
            "How words are counted. scripts: between white space, but two letters of a script without spaces are a word. "
            "python: between white space only, as in DataComp's basic filter. fasttext: between fastText's seven separators, "
            "and a line end is a word, as in DataComp's other filters."
        ),
    ] = "scripts"

    def decide(self, rows: pa.Table) -> pa.Table:
        texts = flatten(rows, "texts").field("text")
        count = COUNTS[self.words]
        words = np.array([count(t) if t is not None else np.nan for t in texts.to_pylist()], dtype=np.float64)
        chars = numbers(pc.utf8_length(texts))
        for reason, value, low, high in (
            ("words", words, self.min_words, self.max_words),
            ("chars", chars, self.min_chars, self.max_chars),
        ):
            rows = drop_texts(rows, value < low, self.name, reason=f"min_{reason}", value=value, threshold=low)
            if high:
                rows = drop_texts(rows, value > high, self.name, reason=f"max_{reason}", value=value, threshold=high)
        return rows
