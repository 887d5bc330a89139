"""Draws that depend only on a row's content, so that every run draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import xxhash

T = TypeVar("T")


def content(key: str) -> str:
    """Return a key without the number of identical rows, which rows of archives get after the first measurement."""
    return key.partition("_")[0]


def fraction(text: str) -> float:
    """Return a number in [0, 1) that is a function of a text."""
    return (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) >> 11) / 2**53


def drawn(text: str, among: Sequence[T], count: int) -> list[T]:
    """Return at most `count` of the items, drawn by a text, in the order of the draw."""
    order = sorted(range(len(among)), key=lambda at: fraction(f"{text} {at}"))
    return [among[at] for at in order[:count]]
