"""Escape untrusted text for a terminal."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """Return the text with control characters, line ends and invisible format characters escaped.

    In a terminal, control characters begin escape sequences, and format characters may change the direction of writing.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    """Return the escape of a control or format character, or any other character unchanged."""
    kind = unicodedata.category(character)
    if kind[0] == "C" or kind in ("Zl", "Zp"):  # control, format, surrogate, private, unassigned; line separators
        return character.encode("unicode_escape").decode()
    return character
