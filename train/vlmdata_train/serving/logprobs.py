"""The probabilities of the tokens of an answer, in the form of OpenAI's API. V vocabulary."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # a token of one byte in the vocabularies of SentencePiece


@dataclass(frozen=True)
class ScoredToken:
    """A token of an answer with the logarithm of its probability, and its most probable alternatives, which may include it."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the most probable token first


def scored(logits: Tensor, token: int, top: int) -> ScoredToken:
    """Return a token with `top` alternatives, or fewer if fewer are possible. `logits` are those of its place, (V,).

    Raises ValueError if the logits give no probabilities, as those of damaged weights.
    """
    logs = logits.float().log_softmax(-1)
    values, tokens = logs.topk(min(top, len(logs)))
    listed = tuple(pair for pair in zip(tokens.tolist(), values.tolist(), strict=True) if pair[1] > -math.inf)
    own = logs[token].item()
    if not math.isfinite(own):
        raise ValueError("the model gives probabilities that are not finite")
    return ScoredToken(token, own, listed)


def logprobs_document(tokens: Sequence[ScoredToken], tokenizer: Any) -> dict[str, Any]:
    """Return the field `logprobs` of an answer."""
    texts = _Texts(tokenizer)
    content = [
        {**texts.entry(one.token, one.logprob), "top_logprobs": [texts.entry(*other) for other in one.top]} for one in tokens
    ]
    return {"content": content, "refusal": None}


class _Texts:
    """The texts of single tokens, as they are after another token. At the start of a text, a decoder leaves out a blank."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._names = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._before: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._start = self._decoded([])

    def entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": self._bytes(token, text)}

    def _decoded(self, tokens: list[int]) -> str:
        found = self._tokenizer.decode([*self._before, *tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(found)

    def _text(self, token: int) -> str:
        if token in self._names:
            return self._names[token]
        text = self._decoded([token])
        return text.removeprefix(self._start) if text.startswith(self._start) else str(self._tokenizer.decode([token]))

    def _bytes(self, token: int, text: str) -> list[int] | None:
        """Return the bytes of a token, which may be a part of a character, or None if they are not known."""
        if "\ufffd" not in text:
            return list(text.encode())
        piece = str(self._tokenizer.convert_ids_to_tokens(token))
        if found := _BYTE.fullmatch(piece):
            return [int(found[1], 16)]
        return [BYTES[letter] for letter in piece] if all(letter in BYTES for letter in piece) else None


def _bytes_by_letter() -> dict[str, int]:
    """Return the byte that a letter stands for in a byte-level vocabulary. Source: Radford et al. 2019, GPT-2.

    Visible characters of Latin-1 stand for themselves, and the letters from U+0100 on for the other bytes, in order.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + number): byte for number, byte in enumerate(others)}


BYTES = _bytes_by_letter()
