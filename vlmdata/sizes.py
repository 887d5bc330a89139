"""Formats sizes in bytes as text."""

from __future__ import annotations


def megabytes(size: int) -> str:
    """Return a size with a fitting unit, in powers of ten: "1.5 MB"."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
