"""Escape untrusted text for a terminal."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """Return the text with an escape in place of every character that acts on a terminal, line ends included.

    Such characters are control characters, which begin escape sequences, and invisible format characters, which may change the
    direction of writing.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    """Return the character, or its escape if it acts on a terminal."""
    kind = unicodedata.category(character)
    if kind[0] == "C" or kind in ("Zl", "Zp"):  # control, format, surrogate, private, unassigned; line separators
        return character.encode("unicode_escape").decode()
    return character
