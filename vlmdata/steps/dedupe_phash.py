"""Keep one of images that look the same: perceptual hashes within a Hamming distance."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import flatten
from vlmdata.similarity.clusters import stand_ins
from vlmdata.similarity.distributed import IN_A_TASK, buckets_for, near_pairs
from vlmdata.similarity.hamming import distinct_pairs
from vlmdata.similarity.pigeonhole_blocks import MAX_DISTANCE, Hashes
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.verdict import columns_of, drop_duplicate_images, living_images
from vlmdata.step import DistributedSearch, RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupePhash(Step):
    """Of images whose 64-bit hashes differ in at most `distance` bits keep the best; every dropped one is within that
    distance of one kept. Exact: no pair is missed.

    A pHash finds re-encoded and resized copies, hardly crops or other edits: on imagededup's own benchmark the recall of
    near duplicates is 0.016 at a distance of 10. At 8 and more, unlike images begin to meet.
    """

    id: ClassVar = "vlmdata.steps.dedupe_phash"
    sees_all: ClassVar = True
    changes: ClassVar = ("images", "cluster")
    distribute_above: ClassVar = 20_000_000  # rows: 2 GB of columns in the driver, a minute of search

    distance: int = 4
    hash: str = "phash"  # ours, of the stored pixels; or a measured column of 64-bit hashes, such as imagededup_hash
    keep: tuple[str, ...] = ("largest", "bytes")  # the greatest in the first, then the next ...; then the least key

    def check(self) -> None:
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise RecipeError(f"{self.name}.distance = {self.distance}: search within 0 to {MAX_DISTANCE} bits of 64")

    def columns_read(self) -> tuple[str, ...]:
        return ("images.phash" if self.hash == "phash" else self.hash, "images.drop", *columns_of(self.keep))

    def decide(self, rows: pa.Table) -> pa.Table:
        return self._decide(rows, lambda distinct: distinct_pairs(distinct, self.distance, threads=2))

    def decide_distributed(self, rows: pa.Table, spread: DistributedSearch) -> pa.Table:
        def find(distinct: Hashes) -> Iterable[Ids]:
            pieces = [spread.keep(distinct[start : start + IN_A_TASK]) for start in range(0, len(distinct), IN_A_TASK)]
            return near_pairs(pieces, self.distance, spread.run, buckets=buckets_for(len(distinct)))

        return self._decide(rows, find)

    def _decide(self, rows: pa.Table, find: Callable[[Hashes], Iterable[Ids]]) -> pa.Table:
        column = flatten(rows, "images").field("phash") if self.hash == "phash" else flatten(rows, self.hash).items
        found = living_images(rows, self.keep, np.asarray(column.is_valid()))
        hashes = column.take(pa.array(found.places)).to_numpy().astype(np.uint64)
        stands = kept_of_hashes(hashes, found.rank, find)
        bits = np.bitwise_count(hashes ^ hashes[stands]).astype(np.float64)
        return drop_duplicate_images(rows, found, stands, self.name, "same_picture", value=bits, threshold=float(self.distance))


def kept_of_hashes(hashes: Hashes, rank: Ids, find: Callable[[Hashes], Iterable[Ids]]) -> Ids:
    """Return the image kept for each: (N,) uint64, (N,) rank -> (N,). Equal hashes are one group with its best member.

    `find` gives chunks of all pairs, by place, among distinct hashes."""
    distinct, groups = np.unique(hashes, return_inverse=True)
    return stand_ins(groups, rank, (chunk.astype(np.uint32) for chunk in find(distinct)))
