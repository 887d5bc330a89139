"""Reject images by their size in bytes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageBytes(Step):
    """Reject an image whose stored encoded size is below `min_bytes` or above `max_bytes`.

    The size is measured after `resize`; if that re-encodes, choose limits for its output, or use the pixels instead
    (`image_size`, `image_detail`). Very small files are blank tiles and icons.
    """

    id: ClassVar = "vlmdata.steps.image_bytes"
    reads: ClassVar = ("images",)

    min_bytes: int = 5000  # LAION-400M, for fetched bytes
    max_bytes: int = 0  # 0: no limit

    def decide(self, rows: pa.Table) -> pa.Table:
        size = numbers(flatten(rows, "images").field("size"))
        low, high = size < self.min_bytes, (size > self.max_bytes) & (self.max_bytes > 0)
        rows = drop_images(rows, low, self.name, reason="min_bytes", value=size, threshold=self.min_bytes)
        return drop_images(rows, np.asarray(high), self.name, reason="max_bytes", value=size, threshold=self.max_bytes)
