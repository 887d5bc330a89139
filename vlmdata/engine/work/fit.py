"""The last link of a chain: images without bytes and rows that the layout of the tars cannot hold are rejected, before anything
is packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_images, drop_rows, flatten
from vlmdata.step import Step

LABEL = "shards"  # as the recipe calls what asks for it


@dataclass(frozen=True, kw_only=True)
class Fit(Step):
    """An image of which nobody has fetched the bytes is dropped as `not_downloaded`: the recipe lacks `download`.

    With `pairs_only`, for the layout `captions`: one image and at most one text of a row are still there, else it is dropped.
    Reasons: `no_image`, `two_images` (or more), `two_texts` (or more, alternatives are none), with their number.
    """

    id: ClassVar = "vlmdata.engine.fit"
    reads: ClassVar = ("images", "texts")
    label: str = field(default=LABEL, init=False)
    pairs_only: bool = True

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        bare = flat.field("blob").is_null().to_numpy(zero_copy_only=False) & flat.field("data").is_null().to_numpy(
            zero_copy_only=False
        )
        rows = drop_images(rows, bare & flat.alive(), self.name, reason="not_downloaded")
        if not self.pairs_only:
            return rows
        images, texts = (_living(rows, column) for column in ("images", "texts"))
        rows = drop_rows(rows, images == 0, self.name, reason="no_image")
        rows = drop_rows(rows, images > 1, self.name, reason="two_images", value=images, threshold=1.0)
        return drop_rows(rows, texts > 1, self.name, reason="two_texts", value=texts, threshold=1.0)


def _living(rows: pa.Table, column: str) -> np.ndarray:
    """Return how many images or texts of each row are still there, as float64."""
    flat = flatten(rows, column)
    return np.bincount(flat.parents[flat.alive()], minlength=len(rows)).astype(np.float64)
