"""Reject images by their sides, aspect ratio and area."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageSize(Step):
    """Reject an image if a side is outside [min_side, max_side] pixels, or if its aspect ratio or area is too large."""

    id: ClassVar = "vlmdata.steps.image_size"
    reads: ClassVar = ("images",)

    min_side: int = 200  # value of DataComp's basic filter
    max_side: int = 20_000  # value of OBELICS
    max_aspect: float = 3.0  # long side / short side; DataComp's basic filter uses 3, OBELICS uses 2
    max_area: int = 0  # pixels; 0: no limit
    of: Literal["original", "stored"] = "original"  # the image as fetched, or as stored in the shard

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        prefix = "original_" if self.of == "original" else ""
        width, height = numbers(flat.field(f"{prefix}width")), numbers(flat.field(f"{prefix}height"))
        short, long = np.minimum(width, height), np.maximum(width, height)
        rules = [
            ("min_side", short < self.min_side, short, self.min_side),
            ("max_side", long > self.max_side, long, self.max_side),
            ("max_aspect", long > self.max_aspect * short, long / short, self.max_aspect),
            ("max_area", (width * height > self.max_area) & (self.max_area > 0), width * height, self.max_area),
        ]
        for reason, bad, value, threshold in rules:
            rows = drop_images(rows, bad, self.name, reason=reason, value=value, threshold=threshold)
        return rows
