"""Which texts of a conversation belong to one question, so that they stay or go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
