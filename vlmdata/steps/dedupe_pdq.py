"""Find images that look the same by the Hamming distance of their PDQ hashes (256 bits), and keep one of them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import aligned, flatten
from vlmdata.similarity.clusters import representatives_of_items
from vlmdata.similarity.embeddings import has_value
from vlmdata.similarity.hamming256 import MAX_DISTANCE, Words, distinct_pairs_256
from vlmdata.similarity.verdict import columns_of, drop_duplicate_images, living_images
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupePdq(Step):
    """Keep the best of the images whose PDQ hashes differ in at most `distance` bits.

    Every dropped image is within that distance of a kept image. The search finds every pair. Its time grows with the square of
    the number of images, so it is meant for up to about a million images. An image whose quality is below `min_quality` stays,
    because the hash of a nearly blank picture carries no information.
    """

    id: ClassVar = "vlmdata.steps.dedupe_pdq"
    example: ClassVar = "- pdq_hash\n- dedupe_pdq: {distance: 31, keep: [largest, earliest]}"
    sees_all: ClassVar = True
    changes: ClassVar = ("images", "cluster")
    limits: ClassVar = {"same_picture": "<= distance"}

    distance: Annotated[
        int,
        Doc(
            "Two images are duplicates if their hashes differ in at most this many bits.",
            unit="bits of 256",
            source="ThreatExchange's limit for the same picture",
        ),
    ] = 31
    min_quality: Annotated[
        float,
        Doc(
            "An image with a lower quality of its hash stays, because the picture is nearly blank.",
            unit="quality, 0 to 100",
            source="ThreatExchange, which ignores hashes of lower quality",
        ),
    ] = 50
    hash: Annotated[str, Doc("Name of the step that measured the hashes.")] = "pdq_hash"
    keep: Annotated[
        tuple[str, ...],
        Doc(
            "Order of preference. Of each set of duplicates, the image with the greatest value of the first column "
            "stays; ties go to the next column, then to the least key. Columns are `largest`, `bytes`, `earliest` and "
            "measured scores.",
            source="vlmdata's choice",
        ),
    ] = ("largest", "bytes")

    def check(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise RecipeError(f"{self.name}.distance must lie in 0..{MAX_DISTANCE} (of 256 bits), not {self.distance}")

    def columns_read(self) -> tuple[str, ...]:
        return ("images.drop", self.hash, f"{self.hash}.quality", *columns_of(self.keep))

    def decide(self, rows: pa.Table) -> pa.Table:
        if not len(rows):
            return rows
        good = has_value(rows, self.hash) & (aligned(rows, f"{self.hash}.quality", "images") >= self.min_quality)
        found = living_images(rows, self.keep, good)
        if not len(found.places):
            return rows
        values = np.full(len(good), None, object)
        values[has_value(rows, self.hash)] = flatten(rows, self.hash).items.drop_null().to_pylist()
        hashes: Words = np.frombuffer(b"".join(values[found.places]), ">u8").astype(np.uint64).reshape(-1, 4)
        distinct, groups = np.unique(hashes, axis=0, return_inverse=True)
        representatives = representatives_of_items(groups.ravel(), found.rank, distinct_pairs_256(distinct, self.distance))
        bits = np.bitwise_count(hashes ^ hashes[representatives]).sum(axis=1).astype(np.float64)
        return drop_duplicate_images(
            rows, found, representatives, self.name, "same_picture", value=bits, threshold=float(self.distance)
        )
