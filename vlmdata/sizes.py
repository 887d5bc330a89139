"""Formats sizes in bytes, and counts of things, as text."""

from __future__ import annotations


def megabytes(size: int) -> str:
    """Return a size with a fitting unit, in powers of ten: "1.5 MB"."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return counted(size, "byte")


def noun(number: int, one: str, many: str | None = None) -> str:
    """Return the noun for a number of things: "row" for 1 and "rows" otherwise. `many` is the plural, by default with an s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number of things with its noun: "1 row", "1,204 rows"."""
    return f"{number:,} {noun(number, one, many)}"
