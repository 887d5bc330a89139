"""Which tokens of a vocabulary count for a word, for the sum of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmdata.models.first_token import bare, choice_of


class WordTokens:
    """The tokens of a tokenizer's vocabulary by their word. The vocabulary is decoded once, at the first call.

    That takes about one CPU second for 150,000 tokens. Special tokens have no word.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._by_word: dict[str, list[int]] | None = None

    def of(self, choices: Sequence[str]) -> list[list[int]]:
        """Return the tokens that count for each choice, in the order of their numbers, as `choice_of` says."""
        if self._by_word is None:
            self._by_word = self._words()
        found: list[list[int]] = [[] for _ in choices]
        beginnings = {choice.casefold()[:end] for choice in choices for end in range(1, len(choice.casefold()) + 1)}
        for word in beginnings & self._by_word.keys():  # only the beginning of a choice can count for one
            number = choice_of(word, choices)
            if number is not None:
                found[number] += self._by_word[word]
        return [sorted(tokens) for tokens in found]

    def _words(self) -> dict[str, list[int]]:
        words: dict[str, list[int]] = {}
        for token in self._tokenizer.get_vocab().values():
            words.setdefault(bare(self._tokenizer.decode([token], skip_special_tokens=True)), []).append(token)
        return words
