"""Keep one of images that look the same by PDQ: 256-bit hashes within a Hamming distance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import aligned, flatten
from vlmdata.similarity.clusters import stand_ins
from vlmdata.similarity.embeddings import has_value
from vlmdata.similarity.hamming256 import MAX_DISTANCE, Words, distinct_pairs_256
from vlmdata.similarity.verdict import columns_of, drop_duplicate_images, living_images
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupePdq(Step):
    """Of images whose PDQ hashes differ in at most `distance` bits keep the best; every dropped one is within that distance
    of one kept. Exact: no pair is missed. Up to about a million images, for 31 bits of 256 leave short keys to search by.

    An image of too little quality is left alone: the hashes of nearly blank pictures say nothing.
    """

    id: ClassVar = "vlmdata.steps.dedupe_pdq"
    sees_all: ClassVar = True
    changes: ClassVar = ("images", "cluster")

    distance: int = 31  # of 256: what ThreatExchange holds for the same picture
    min_quality: float = 50  # of 100; ThreatExchange disregards hashes of less
    hash: str = "pdq_hash"  # the label of the step that measured
    keep: tuple[str, ...] = ("largest", "bytes")  # the greatest in the first, then the next ...; then the least key

    def check(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise RecipeError(f"{self.name}.distance = {self.distance}: search within 0 to {MAX_DISTANCE} bits of 256")

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
        stands = stand_ins(groups.ravel(), found.rank, distinct_pairs_256(distinct, self.distance))
        bits = np.bitwise_count(hashes ^ hashes[stands]).sum(axis=1).astype(np.float64)
        return drop_duplicate_images(rows, found, stands, self.name, "same_picture", value=bits, threshold=float(self.distance))
