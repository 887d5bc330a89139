"""Measure how well an image matches its text if the text inside the image is masked: the score of T-MARS."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.images.text_regions import masked_image, unpacked
from vlmdata.parameters import Doc
from vlmdata.row import aligned_items
from vlmdata.step import StepContext
from vlmdata.steps.clip_score import ClipScore


@dataclass(frozen=True, kw_only=True)
class MaskedClipScore(ClipScore):
    """Reject an image if its highest cosine with a text of its row is below `min_score` after its own text is masked.

    CLIP reads, so a picture that only shows the words of its caption has a high `clip_score`. This step fills the regions that
    an earlier `text_in_image` has found with the colour around them, and then scores like `clip_score`, with the same models,
    texts and rounding. T-MARS (Maini et al. 2023) keeps the pairs with the highest scores, which `top_fraction` does.

    An image without regions is scored as it is. An image with regions is scored upright and over white; the stored images of a
    dataset are not changed.
    """

    id: ClassVar = "vlmdata.steps.masked_clip_score"
    example: ClassVar = (
        "- text_in_image\n"
        "- masked_clip_score: {model: ViT-B-32, pretrained: laion2b_s34b_b79k}\n"
        "- top_fraction: {score: masked_clip_score, fraction: 0.5}"
    )
    version: ClassVar = 1

    min_score: Annotated[
        float,
        Doc(
            "An image is rejected if its highest cosine with a text of its row is lower. -1: none is.",
            unit="cosine, -1 to 1",
            source="T-MARS, which has no fixed limit",
        ),
    ] = -1.0
    text_of: Annotated[str, Doc("Name of the earlier step text_in_image whose regions are masked.")] = "text_in_image"

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, f"{self.text_of}.regions")

    def pictures(
        self, rows: pa.Table, positions: np.ndarray, context: StepContext
    ) -> tuple[list[Hashable], Callable[[Any], bytes]]:
        places, read = super().pictures(rows, positions, context)
        regions = aligned_items(rows, f"{self.text_of}.regions", "images").take(pa.array(positions)).to_pylist()
        masked = [(place, stored) if stored else place for place, stored in zip(places, regions, strict=True)]

        def read_masked(picture: Any) -> bytes:
            if not isinstance(picture[0], tuple):
                return read(picture)
            place, stored = picture
            return masked_image(read(place), unpacked(stored))

        return masked, read_masked
