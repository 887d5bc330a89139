"""Adds grounded questions and answers to rows: a caption pair becomes a conversation, and a conversation gets longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.generation.as_conversation import MOVED, with_captions, with_verdict
from vlmdata.generation.captions import Rejection, own_text
from vlmdata.generation.positions import with_positions
from vlmdata.grounding.questions import Grounded, GroundedTurn
from vlmdata.row import TEXT, in_one, set_column


def with_grounded_turns(rows: pa.Table, found: Sequence[Sequence[GroundedTurn]], step: str) -> pa.Table:
    """Return the rows with two positions at the end for each of their turns, the question and the answer.

    A row without turns stays as it is. A row that is no conversation becomes one: its positions get the role of the user, its
    captions get the verdict `caption_in_json`, and `extra` gets an object, named like the step, with `captions`, their
    `origins` if steps wrote some, and `kinds`, the tasks of the turns.
    """
    gets = np.array([bool(some) for some in found], bool)
    if not gets.any():
        return rows
    columns = {name: in_one(rows[name]).to_pylist() for name in ("texts", "roles", "turns", "extra")}
    for row in np.flatnonzero(gets).tolist():
        before, roles = columns["texts"][row], columns["roles"][row]
        new = [_text(one) for turn in found[row] for one in (turn.question, turn.answer)]
        if roles is None:
            kinds = [turn.task for turn in found[row]]
            columns["extra"][row] = with_captions(columns["extra"][row], own_text({"texts": before}), kinds, step)
            before = [text and with_verdict(text, step, Rejection(MOVED)) for text in before]
            roles = ["user"] * len(before)
        columns["texts"][row] = [*before, *new]
        columns["roles"][row] = [*roles, *["user", "assistant"] * len(found[row])]
        if columns["turns"][row] is not None:
            columns["turns"][row] = [*columns["turns"][row], *[None] * len(new)]
    rows = with_positions(rows, np.array([2 * len(some) for some in found]))
    strings = pa.list_(pa.string())
    for name, kind in (("texts", pa.list_(TEXT)), ("roles", strings), ("turns", strings), ("extra", pa.string())):
        rows = set_column(rows, name, pa.array(columns[name], kind))
    return rows


def _text(one: Grounded) -> dict[str, Any]:
    return {"text": one.text, "grounding": None if one.grounding is None else one.grounding.dump()}
