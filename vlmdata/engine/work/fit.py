"""The last bound step: it rejects images without bytes and rows that the layout of the tars cannot hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.engine.work.lost_boxes import lost_boxes
from vlmdata.row import drop_images, drop_rows, drop_texts, flatten
from vlmdata.step import Step

LABEL = "shards"  # the recipe's key that sets the layout


@dataclass(frozen=True, kw_only=True)
class Fit(Step):
    """Drops images without bytes as `not_downloaded`, which happens if the recipe lacks `download`.

    A question or an answer of which the stored image no longer shows a box is dropped as `lost_box`, with its other half.

    With `pairs_only`, which the layout `captions` sets, a row must have exactly one image and at most one text left. Other
    rows are dropped as `no_image`, `two_images` (two or more) or `two_texts` (two or more). The value of such a drop is the
    number of images or texts. Alternatives of a text do not count.
    """

    id: ClassVar = "vlmdata.engine.fit"
    reads: ClassVar = ("images", "texts", "roles")
    limits: ClassVar = {"two_images": "= layout documents", "two_texts": "= layout documents"}
    label: str = field(default=LABEL, init=False)
    pairs_only: bool = True

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        bare = flat.field("blob").is_null().to_numpy(zero_copy_only=False) & flat.field("data").is_null().to_numpy(
            zero_copy_only=False
        )
        rows = drop_images(rows, bare & flat.alive(), self.name, reason="not_downloaded")
        if flatten(rows, "texts").field("grounding").null_count < len(flatten(rows, "texts").items):
            rows = drop_texts(rows, lost_boxes(rows), self.name, reason="lost_box")
        if not self.pairs_only:
            return rows
        images, texts = (_count_kept(rows, column) for column in ("images", "texts"))
        rows = drop_rows(rows, images == 0, self.name, reason="no_image")
        rows = drop_rows(rows, images > 1, self.name, reason="two_images", value=images, threshold=1.0)
        return drop_rows(rows, texts > 1, self.name, reason="two_texts", value=texts, threshold=1.0)


def _count_kept(rows: pa.Table, column: str) -> np.ndarray:
    """Return for each row the number of its images or texts that are not dropped, float64 (N,)."""
    flat = flatten(rows, column)
    return np.bincount(flat.parents[flat.alive()], minlength=len(rows)).astype(np.float64)
