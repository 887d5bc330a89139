"""Reject images by the format in which they were fetched."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.parameters import Doc
from vlmdata.row import drop_images, flatten
from vlmdata.step import Step

Format = Literal["jpeg", "png", "webp", "gif", "avif", "tiff", "bmp"]


@dataclass(frozen=True, kw_only=True)
class ImageFormat(Step):
    """Reject an image that was fetched in a format that is not in `formats`. The format that `resize` writes does not matter.

    The first bytes of the file determine its format. The address and HTTP headers have no influence.
    """

    id: ClassVar = "vlmdata.steps.image_format"
    example: ClassVar = "- image_format: {formats: [jpeg, png]}"
    reads: ClassVar = ("images",)
    limits: ClassVar = {"format_*": "not in formats"}
    fetched: ClassVar = ("format",)

    formats: Annotated[list[Format], Doc("Formats to keep.", source="OBELICS, step 12")] = field(
        default_factory=lambda: ["jpeg", "png", "webp"]
    )

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        formats = pc.coalesce(flat.field("original_format"), flat.field("format")).to_pylist()
        bad = np.array([name is not None and name not in self.formats for name in formats], bool)
        reasons = np.array([name and f"format_{name}" for name in formats], object)
        return drop_images(rows, bad, self.name, reason=reasons)
