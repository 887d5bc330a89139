"""Sizes in words."""

from __future__ import annotations


def megabytes(size: int) -> str:
    """Return a size in the unit that suits it, powers of ten."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
