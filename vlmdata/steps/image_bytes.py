"""Reject images by their size in bytes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageBytes(Step):
    """Reject an image whose stored file is smaller than `min_bytes` or larger than `max_bytes`.

    The stored file is the output of `resize`. If `resize` re-encodes images, choose limits for its output, or judge the pixels
    with `image_size` or `image_detail` instead. Very small files are usually blank tiles and icons.
    """

    id: ClassVar = "vlmdata.steps.image_bytes"
    reads: ClassVar = ("images",)

    min_bytes: int = 5000  # LAION-400M's limit, for files as fetched
    max_bytes: int = 0  # 0: no limit

    def decide(self, rows: pa.Table) -> pa.Table:
        size = numbers(flatten(rows, "images").field("size"))
        low, high = size < self.min_bytes, (size > self.max_bytes) & (self.max_bytes > 0)
        rows = drop_images(rows, low, self.name, reason="min_bytes", value=size, threshold=self.min_bytes)
        return drop_images(rows, np.asarray(high), self.name, reason="max_bytes", value=size, threshold=self.max_bytes)
