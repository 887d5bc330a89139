"""Reject images by the bytes they take."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageBytes(Step):
    """Reject an image whose encoded bytes, as they are stored, are fewer than `min_bytes` or more than `max_bytes`.

    Bytes are those after `resize`; where it re-encodes, choose limits for what it writes, or measure the pixels
    (`image_size`, `image_detail`). Thin files are blank tiles and icons.
    """

    id: ClassVar = "vlmdata.steps.image_bytes"
    reads: ClassVar = ("images",)

    min_bytes: int = 5000  # LAION-400M, of bytes as fetched
    max_bytes: int = 0  # 0: any

    def decide(self, rows: pa.Table) -> pa.Table:
        size = numbers(flatten(rows, "images").field("size"))
        low, high = size < self.min_bytes, (size > self.max_bytes) & (self.max_bytes > 0)
        rows = drop_images(rows, low, self.name, reason="min_bytes", value=size, threshold=self.min_bytes)
        return drop_images(rows, np.asarray(high), self.name, reason="max_bytes", value=size, threshold=self.max_bytes)
