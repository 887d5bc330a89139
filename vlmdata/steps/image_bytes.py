"""Reject images by their size in bytes."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageBytes(Step):
    """Reject an image whose stored file is smaller than `min_bytes` or larger than `max_bytes`.

    The stored file is the output of `resize`. If `resize` re-encodes images, choose limits for its output, or judge the pixels
    with `image_size` or `image_detail` instead. Very small files are usually blank tiles and icons.
    """

    id: ClassVar = "vlmdata.steps.image_bytes"
    example: ClassVar = "- image_bytes: {min_bytes: 5000, max_bytes: 5000000}"
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("size",)

    min_bytes: Annotated[
        int, Doc("An image whose stored file is smaller is rejected.", unit="bytes", source="LAION-400M, for files as fetched")
    ] = 5000
    max_bytes: Annotated[int, Doc("An image whose stored file is larger is rejected. 0: no limit.", unit="bytes")] = 0

    def decide(self, rows: pa.Table) -> pa.Table:
        size = numbers(flatten(rows, "images").field("size"))
        low, high = size < self.min_bytes, (size > self.max_bytes) & (self.max_bytes > 0)
        rows = drop_images(rows, low, self.name, reason="min_bytes", value=size, threshold=self.min_bytes)
        return drop_images(rows, np.asarray(high), self.name, reason="max_bytes", value=size, threshold=self.max_bytes)
