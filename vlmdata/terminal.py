"""Fits text into the columns of a terminal, in which a character takes no, one or two columns."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable

FALLBACK = 80  # columns of a terminal that does not tell its size


def columns() -> int:
    """Return the width of the terminal behind standard error, or the value of the variable COLUMNS, which comes first."""
    try:
        return int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(sys.stderr.fileno()).columns or FALLBACK
    except (OSError, ValueError):  # not a terminal, or a stream without a file
        return FALLBACK


def width(text: str) -> int:
    """Return the number of columns that a text takes. Chinese, Japanese and Korean characters take two each."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # accents, and marks without a picture
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def one_line(text: str) -> str:
    """Return the text with "?" in place of characters that move the cursor or end the line."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def cut(text: str, most: int) -> str:
    """Return one line of at most `most` columns. The end of a longer text is replaced by "…"."""
    text = one_line(text)
    if width(text) <= most:
        return text
    taken = 1  # the column of "…"
    for position, character in enumerate(text):
        taken += _width(character)
        if taken > most:
            return f"{text[:position]}…"[: max(0, most)]
    raise AssertionError("a text that is too wide has a character that does not fit")


def cell(text: str, wide: int) -> str:
    """Return the text, cut or padded with spaces to exactly `wide` columns."""
    text = cut(text, wide)
    return text + " " * (wide - width(text))


def filled(pieces: Iterable[str], most: int, *, indent: str = "  ") -> list[str]:
    """Return lines of at most `most` columns that hold the pieces, separated by spaces. A piece is not divided, but cut."""
    lines: list[str] = []
    for piece in pieces:
        piece = cut(piece, most - len(indent))
        if lines and width(lines[-1]) + 1 + width(piece) <= most:
            lines[-1] += f" {piece}"
        else:
            lines.append(indent + piece)
    return lines
