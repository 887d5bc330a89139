"""Reject images by their sides, aspect ratio and area."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageSize(Step):
    """Reject an image if a side is outside [min_side, max_side] pixels, or if its aspect ratio or area is too large."""

    id: ClassVar = "vlmdata.steps.image_size"
    example: ClassVar = "- image_size: {min_side: 200, max_aspect: 3}"
    reads: ClassVar = ("images",)

    min_side: Annotated[
        int, Doc("An image with a shorter side is rejected.", unit="pixels", source="DataComp's basic filter")
    ] = 200
    max_side: Annotated[int, Doc("An image with a longer side is rejected.", unit="pixels", source="OBELICS")] = 20_000
    max_aspect: Annotated[
        float,
        Doc(
            "An image with a greater ratio of long side to short side is rejected.",
            unit="ratio, 1 or more",
            source="DataComp's basic filter; OBELICS uses 2",
        ),
    ] = 3.0
    max_area: Annotated[int, Doc("An image with a larger area is rejected. 0: no limit.", unit="pixels")] = 0
    of: Annotated[Literal["original", "stored"], Doc("Which image is judged: as fetched, or as stored in the shard.")] = (
        "original"
    )

    def fields_fetched(self) -> tuple[str, ...]:
        return ("original_width" if self.of == "original" else "width",)

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
