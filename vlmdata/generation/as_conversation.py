"""Makes conversations of caption pairs: questions and answers become texts at new positions, and captions move to the JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.fields import renamed
from vlmdata.generation.captions import Rejection, own_text
from vlmdata.generation.positions import with_positions
from vlmdata.generation.turns import Judged
from vlmdata.grounding.current import without_numbers
from vlmdata.grounding.spans import read_grounding
from vlmdata.row import TEXT, in_one, set_column

EMPTY: Mapping[str, Any] = MappingProxyType({})
MOVED = "caption_in_json"  # the verdict on the caption of a row that became a conversation


def as_conversations(
    rows: pa.Table, found: Sequence[Sequence[Judged]], step: str, about: Sequence[Mapping[str, Any]] | None = None
) -> pa.Table:
    """Return the rows, those with an accepted turn as conversations. `found` has the turns of each row, most often none.

    Each turn of such a row gets two positions at the row's end: first the accepted turns, then the others, whose texts have a
    verdict. So a rule adds no position as long as one turn is accepted. Each position gets a role, and the caption gets the
    verdict `caption_in_json`. `extra` gets an object, named like the step, with `captions`, their `origins` if steps wrote
    some, and `kinds`: the kind of each accepted turn. `about` has further fields of this object for each row. The captions have
    no numbers of boxes, because nobody keeps these up to date. A row without an accepted turn stays as it is.
    """
    turns = [[one for one in some if one.turn is not None] for some in found]
    is_talk = np.array([any(one.rejection is None for one in some) for some in turns], bool)
    if not is_talk.any():
        return rows
    columns = {name: in_one(rows[name]).to_pylist() for name in ("images", "texts", "roles", "extra")}
    for row in np.flatnonzero(is_talk).tolist():
        accepted = [one for one in turns[row] if one.rejection is None]
        rejected = [one for one in turns[row] if one.rejection is not None]
        before = columns["texts"][row]
        new = [text for one in (*accepted, *rejected) for text in _texts(one, step)]
        kinds, further = [one.kind for one in accepted], about[row] if about else {}
        columns["extra"][row] = with_captions(columns["extra"][row], own_text({"texts": before}), kinds, step, further)
        columns["texts"][row] = [*(text and with_verdict(text, step, Rejection(MOVED)) for text in before), *new]
        columns["roles"][row] = ["user"] * len(before) + ["user", "assistant"] * (len(new) // 2)
    rows = with_positions(rows, np.where(is_talk, [2 * len(some) for some in turns], 0))
    for name, kind in (("texts", pa.list_(TEXT)), ("roles", pa.list_(pa.string())), ("extra", pa.string())):
        rows = set_column(rows, name, pa.array(columns[name], kind))
    return rows


def _texts(one: Judged, step: str) -> list[dict[str, Any]]:
    texts: list[dict[str, Any]] = [{"text": text} for text in one.turn or ()]
    return [with_verdict(text, step, one.rejection) for text in texts] if one.rejection else texts


def with_verdict(text: Mapping[str, Any], step: str, why: Rejection) -> dict[str, Any]:
    """Return a text with a verdict. A text that an earlier step rejected keeps its own."""
    if text.get("drop"):
        return dict(text)
    value, threshold = (None if np.isnan(one) else one for one in (why.value, why.threshold))
    return {**text, "drop": step, "reason": why.reason, "value": value, "threshold": threshold}


def with_captions(
    extra: str | None, text: Mapping[str, Any] | None, kinds: Sequence[str], step: str, further: Mapping[str, Any] = EMPTY
) -> str:
    """Return `extra` with an object, named like the step: the captions of `text`, the kinds of the turns, and further fields.

    A row without a caption has an empty list of captions.
    """
    own: dict[str, Any] = {"captions": []}
    if text is not None:
        words, grounding = text.get("text"), read_grounding(text.get("grounding"), text.get("text"))
        own["captions"] = [without_numbers(words or "", grounding) if grounding else words, *(text.get("alternatives") or ())]
        if any(text.get("origins") or ()):
            own["origins"] = [None, *text["origins"]]
    own["kinds"] = list(kinds)
    return json.dumps({**renamed(json.loads(extra or "{}"), {step}), step: {**own, **further}}, ensure_ascii=False)
