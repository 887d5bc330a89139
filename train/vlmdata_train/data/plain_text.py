"""Strangers' text made harmless for a terminal."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """Return text with every character that a terminal obeys instead of showing it, line ends among them, as its escape.

    These are control characters, which begin escape sequences, and marks without a form, such as those that turn the
    direction of writing.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind[0] == "C" or kind in ("Zl", "Zp"):  # control, format, surrogate, private, unassigned; separators of lines
        return character.encode("unicode_escape").decode()
    return character
