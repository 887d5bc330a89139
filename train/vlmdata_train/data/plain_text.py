"""Escaping of untrusted text for a terminal."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """Return text with every character that acts on a terminal, line ends included, replaced by its escape.

    These are control characters, which begin escape sequences, and invisible format characters, such as those that change
    the direction of writing.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind[0] == "C" or kind in ("Zl", "Zp"):  # control, format, surrogate, private, unassigned; line separators
        return character.encode("unicode_escape").decode()
    return character
