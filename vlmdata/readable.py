"""Writes values of the ledger as people write them: numbers without rounding noise, lists without nulls, texts in one line."""

from __future__ import annotations

import math
import re
from typing import Any

ITEMS = 8  # of a list
CHARS = 100  # of a text
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]+")


def number(value: float) -> str:
    """Return a number with six significant digits: 0.197 for 0.19699999690055847, 1234567 for 1234567.0.

    Integers below 10**15 are complete. Numbers below 0.0001 have an exponent.
    """
    if not math.isfinite(value):
        return str(value)
    if abs(value) < 1e15 and (value == int(value) or abs(value) >= 1e6):
        return f"{value:.0f}"
    return f"{value:.6g}"


def text(value: Any, most: int = CHARS) -> str:
    """Return any value of a ledger's column in one line: lists without nulls, and long lists and texts shortened."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) else number(value)
    if isinstance(value, dict):
        return _joined([f"{name} {text(one)}" for name, one in value.items() if one is not None], most)
    if isinstance(value, list | tuple):
        present = [one for one in value if one is not None]
        items = [f"({text(one)})" if isinstance(one, list | tuple | dict) else text(one) for one in present]
        return _joined(items, most)
    return visible(value.hex() if isinstance(value, bytes) else str(value), most)


def is_empty(value: Any) -> bool:
    """Return whether a value is null, or a list of nulls."""
    return value is None or (isinstance(value, list | tuple) and all(one is None for one in value))


def visible(words: str, most: int = CHARS) -> str:
    """Return the beginning of a text in one line, without characters that control a terminal or change the text direction."""
    line = " ".join(UNPRINTABLE.sub(" ", words[: 4 * most]).split())
    return line if len(line) <= most and len(words) <= 4 * most else f"{line[: most - 1].rstrip()}…"


def _joined(items: list[str], most: int) -> str:
    shown, length = 0, 0
    while shown < min(len(items), ITEMS) and (not shown or length + len(items[shown]) <= most):
        length += len(items[shown]) + 2
        shown += 1
    rest = f", … ({len(items):,} values)" if shown < len(items) else ""
    return ", ".join(items[:shown]) + rest or "(empty)"
