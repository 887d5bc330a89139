"""Finds grounded texts that say nothing without boxes which their stored images no longer show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.engine.output.sample import current_text, kept_images
from vlmdata.row import flatten


def lost_boxes(rows: pa.Table) -> np.ndarray:
    """Return a bool per position of `texts`: true if the text has lost boxes that it needs, or if it belongs to such a text.

    Such a text has another task than `mention`, such as the answer to a question for a place. In a conversation, a question
    belongs to the answer behind it: neither makes sense without the other.
    """
    texts = flatten(rows, "texts")
    bad = np.zeros(len(texts.items), bool)
    grounded = texts.field("grounding").is_valid().to_numpy(zero_copy_only=False)
    starts = texts.offsets.to_pylist()
    for number in np.unique(texts.parents[grounded & texts.alive()]).tolist():
        (row,) = rows.slice(number, 1).select(["images", "texts", "roles"]).to_pylist()
        bad[starts[number] : starts[number + 1]] = _lost(row)
    return bad


def _lost(row: Mapping[str, Any]) -> list[bool]:
    images = kept_images({place: (place, image) for place, image in enumerate(row["images"] or ()) if _is_kept(image)})
    found = [_is_kept(text) and not current_text(text, images).is_whole for text in row["texts"]]
    roles = row["roles"]
    if not roles or not any(found):
        return found
    exchanges = np.cumsum([role == "user" and (place == 0 or roles[place - 1] != "user") for place, role in enumerate(roles)])
    lost = {exchanges[place] for place, is_lost in enumerate(found) if is_lost}
    talk = ("user", "assistant")
    return [exchange in lost and role in talk for exchange, role in zip(exchanges.tolist(), roles, strict=True)]


def _is_kept(item: Mapping[str, Any] | None) -> bool:
    return item is not None and item["drop"] is None
