"""Perplexity of a text under a KenLM n-gram model.

Needs `vlmdata[perplexity]`. The models are CCNet's (Wenzek et al. 2019) and are used as in the released code of OBELICS.
Control characters, including line breaks, are removed, digits become 0, and punctuation of other scripts becomes ASCII. The
SentencePiece tokens of the whole text are one sentence for the model.
"""

from __future__ import annotations

import re
from typing import Any

from vlmdata.text.special_characters import SPACES

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_DIGIT = re.compile(r"\d")
_PUNCTUATION = str.maketrans(
    {
        **dict(zip("，。、∶：？！（）；–━〈〉【】％►～", ",.,::?!();--<>[]%-~", strict=True)),
        **dict.fromkeys("„”“«»１」「《》", '"'),
        **dict.fromkeys("´’", "'"),
        "—": " - ",
        "．": ". ",
        "…": "...",
    }
)


class Fluency:
    """A KenLM model and, if given, the SentencePiece model of its training data. A worker keeps them for all partitions."""

    def __init__(self, model: str, pieces: str = ""):
        import kenlm

        self.model: Any = kenlm.Model(model)
        self.pieces: Any = None
        if pieces:
            import sentencepiece

            self.pieces = sentencepiece.SentencePieceProcessor(model_file=pieces)

    def perplexity(self, text: str) -> float:
        """Return the perplexity of a text, rounded to one decimal.

        The mean log10 probability is taken over the text's tokens and its end. The perplexity is 10 to the power of minus this
        mean.
        """
        text = normalized(text)
        tokens = self.pieces.encode(text, out_type=str) if self.pieces else text.split()
        score = self.model.score(" ".join(tokens))
        return round(10.0 ** (-score / (len(tokens) + 1)), 1)


def normalized(text: str) -> str:
    """Return the text with spaces, digits and punctuation normalized as in the training data of CCNet's models."""
    return _DIGIT.sub("0", _CONTROL.sub("", text).strip().translate(SPACES)).translate(_PUNCTUATION)
