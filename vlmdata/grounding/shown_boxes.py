"""What a trainer or a loader needs to show a sample's boxes: their fractions, and which texts belong to one question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.grounding.spans import Box

MOST = 1e9  # pixels; an edge beyond this is no edge of a box, and an integer of a thousand digits is no float


def fractions_of(boxes: Any, width: int, height: int) -> list[Box | None]:
    """Return the boxes of an image as fractions of it, from the value of `boxes` in a sample's JSON, which is in pixels.

    The result is aligned with the boxes. What is no box with an area is None.
    """
    return [_box(value, width, height) for value in boxes] if isinstance(boxes, list) else []


def _box(value: Any, width: int, height: int) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(type(edge) in (int, float) and abs(edge) < MOST for edge in value):  # false for NaN
        return None
    x0, y0, x1, y1 = value[0] / width, value[1] / height, value[2] / width, value[3] / height
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def exchanges(roles: Sequence[Any], turns: Sequence[Any] | None) -> list[int]:
    """Return for each position of a conversation the number of its question, from 1. It is 0 before the first question.

    A question begins where the user begins a message. `turns` are the properties of the positions, as in a sample's JSON.
    """
    numbers: list[int] = []
    for place, role in enumerate(roles):
        turn = turns[place] if turns is not None and place < len(turns) else None
        begins = place == 0 or roles[place - 1] != role or (isinstance(turn, Mapping) and bool(turn.get("begins")))
        numbers.append((numbers[-1] if numbers else 0) + (role == "user" and begins))
    return numbers
