"""How surprised a language model is by a text: perplexity under an n-gram model of KenLM.

Needs `vlmdata[perplexity]`. Source: CCNet (Wenzek et al. 2019), whose models these are, in the form in which the released code
of OBELICS uses them: control characters, line breaks among them, are removed, digits become 0, punctuation of other scripts
becomes ASCII, SentencePiece cuts the whole text into pieces, and that is one sentence to the model.
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
    """A KenLM model, with the SentencePiece model that it was trained behind, if any. Kept by a worker from part to part."""

    def __init__(self, model: str, pieces: str = ""):
        import kenlm

        self.model: Any = kenlm.Model(model)
        self.pieces: Any = None
        if pieces:
            import sentencepiece

            self.pieces = sentencepiece.SentencePieceProcessor(model_file=pieces)

    def perplexity(self, text: str) -> float:
        """Return 10 to the negative mean log10 probability of a token, the end of the text among them, rounded to 0.1."""
        text = normalized(text)
        tokens = self.pieces.encode(text, out_type=str) if self.pieces else text.split()
        score = self.model.score(" ".join(tokens))
        return round(10.0 ** (-score / (len(tokens) + 1)), 1)


def normalized(text: str) -> str:
    """Return a text as these models want it."""
    return _DIGIT.sub("0", _CONTROL.sub("", text).strip().translate(SPACES)).translate(_PUNCTUATION)
