"""Keep one of images that look the same: perceptual hashes within a Hamming distance."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.row import flatten
from vlmdata.similar.blocks import MAX_DISTANCE
from vlmdata.similar.clusters import best_of_groups, leaders
from vlmdata.similar.hamming import distinct_pairs
from vlmdata.similar.runs import Ids
from vlmdata.similar.verdict import columns_of, drop_duplicate_images, living_images
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupePhash(Step):
    """Of images whose 64-bit hashes differ in at most `distance` bits keep the best; every dropped one is within that
    distance of one kept. Exact: no pair is missed.

    A pHash finds re-encoded and resized copies, hardly crops or other edits: on imagededup's own benchmark the recall of
    near duplicates is 0.016 at a distance of 10. At 8 and more, unlike images begin to meet.
    """

    sees_all: ClassVar = True
    changes: ClassVar = ("images", "cluster")

    distance: int = 4
    hash: str = "phash"  # ours, of the stored pixels; or a measured column of 64-bit hashes, such as imagededup_hash
    keep: tuple[str, ...] = ("largest", "bytes")  # the greatest in the first, then the next ...; then the least key

    def check(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise RecipeError(f"{self.name}.distance = {self.distance}: search within 0 to {MAX_DISTANCE} bits of 64")

    def columns_read(self) -> tuple[str, ...]:
        return (*(() if self.hash == "phash" else (self.hash,)), *columns_of(self.keep))

    def decide(self, rows: pa.Table) -> pa.Table:
        images = flatten(rows, "images")
        column = images.field("phash") if self.hash == "phash" else flatten(rows, self.hash).items
        found = living_images(rows, self.keep, np.asarray(column.is_valid()))
        hashes = pc.fill_null(column, 0).to_numpy()[found.places].astype(np.uint64)
        stands = kept_of_hashes(hashes, found.rank, self.distance)
        bits = np.bitwise_count(hashes ^ hashes[stands]).astype(np.float64)
        return drop_duplicate_images(rows, found, stands, self.name, "same_picture", value=bits, threshold=float(self.distance))


def kept_of_hashes(hashes: np.ndarray, rank: Ids, distance: int) -> Ids:
    """Return the image kept for each: (N,) uint64, (N,) rank -> (N,). Equal hashes are one group with its best member."""
    distinct, groups = np.unique(hashes, return_inverse=True)
    best = best_of_groups(groups, rank)
    order = np.empty(len(best), np.int64)
    order[np.argsort(rank[best])] = np.arange(len(best))
    pairs: list[Ids] = [chunk.astype(np.uint32) for chunk in distinct_pairs(distinct, distance, threads=2)]
    return best[leaders(order, pairs)][groups]
