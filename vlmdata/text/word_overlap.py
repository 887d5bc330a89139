"""Compares the words of a caption with the words that are written in its picture."""

from __future__ import annotations

import re
import unicodedata

from vlmdata.text.words import UNSPACED

MIN_LETTERS = 3  # ICDAR's contests of reading text in photos do not count shorter words
_UNSPACED = re.compile(f"[{UNSPACED}]")
_APOSTROPHES = str.maketrans("", "", "'\u2018\u2019\u02bc\uff07")
_ACCENTS = re.compile("[\u0300-\u036f]")


def folded_words(text: str) -> set[str]:
    """Return the distinct words of a text, in the form in which they are compared.

    Case, accents, apostrophes, punctuation and the width of characters do not count. A word is a run of letters, marks and
    digits of at least three characters. In scripts without spaces between words, each letter is a word.
    """
    plain = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    if not plain.isascii():
        plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", plain)))
    letters = set(_UNSPACED.findall(plain))
    spaced = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in _UNSPACED.sub(" ", plain))
    return letters | {word for word in spaced.split() if len(word) >= MIN_LETTERS}


def shared_words(text: str, other: str) -> float | None:
    """Return the share of the distinct words of `text` that also occur in `other`, 0 to 1. None if `text` has no word."""
    words = folded_words(text)
    return len(words & folded_words(other)) / len(words) if words else None
