"""Find images that look the same, and keep one of them. Their perceptual hashes differ in only a few bits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import flatten
from vlmdata.similarity.clusters import representatives_of_items
from vlmdata.similarity.distributed import IN_A_TASK, buckets_for, near_pairs
from vlmdata.similarity.hamming import distinct_pairs
from vlmdata.similarity.pigeonhole_blocks import MAX_DISTANCE, Hashes
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.verdict import columns_of, drop_duplicate_images, living_images
from vlmdata.step import DistributedSearch, RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupePhash(Step):
    """Keep the best of the images whose 64-bit hashes differ in at most `distance` bits.

    Every dropped image is within that distance of a kept image. The search finds every pair. A pHash finds re-encoded
    and resized copies, but rarely crops or other edits. On imagededup's benchmark the recall of near duplicates is 0.016 at a
    distance of 10. With a distance of 8 or more, different images also match.
    """

    id: ClassVar = "vlmdata.steps.dedupe_phash"
    example: ClassVar = "- dedupe_phash: {distance: 4, keep: [largest, earliest]}"
    sees_all: ClassVar = True
    changes: ClassVar = ("images", "cluster")
    distribute_above: ClassVar = 20_000_000  # rows, for which the driver holds 2 GB of columns and searches for a minute
    limits: ClassVar = {"same_picture": "<= distance"}

    distance: Annotated[
        int,
        Doc(
            "Two images are duplicates if their hashes differ in at most this many bits.",
            unit="bits of 64",
            source="vlmdata's choice: with 8 or more, different images match; imagededup uses 10",
        ),
    ] = 4
    hash: Annotated[
        str,
        Doc(
            "`phash`, vlmdata's hash of the stored pixels, or the name of a step that measures 64-bit hashes, as "
            "imagededup_hash does."
        ),
    ] = "phash"
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
            raise RecipeError(f"{self.name}.distance must lie in 0..{MAX_DISTANCE} (of 64 bits), not {self.distance}")

    def fields_fetched(self) -> tuple[str, ...]:
        return ("phash",) if self.hash == "phash" else ()

    def columns_read(self) -> tuple[str, ...]:
        return ("images.phash" if self.hash == "phash" else self.hash, "images.drop", *columns_of(self.keep))

    def decide(self, rows: pa.Table) -> pa.Table:
        return self._decide(rows, lambda distinct: distinct_pairs(distinct, self.distance, threads=2))

    def decide_distributed(self, rows: pa.Table, search: DistributedSearch) -> pa.Table:
        def find(distinct: Hashes) -> Iterable[Ids]:
            pieces = [search.keep(distinct[start : start + IN_A_TASK]) for start in range(0, len(distinct), IN_A_TASK)]
            return near_pairs(pieces, self.distance, search.run, buckets=buckets_for(len(distinct)))

        return self._decide(rows, find)

    def _decide(self, rows: pa.Table, find: Callable[[Hashes], Iterable[Ids]]) -> pa.Table:
        column = flatten(rows, "images").field("phash") if self.hash == "phash" else flatten(rows, self.hash).items
        found = living_images(rows, self.keep, np.asarray(column.is_valid()))
        hashes = column.take(pa.array(found.places)).to_numpy().astype(np.uint64)
        representatives = kept_of_hashes(hashes, found.rank, find)
        bits = np.bitwise_count(hashes ^ hashes[representatives]).astype(np.float64)
        return drop_duplicate_images(
            rows, found, representatives, self.name, "same_picture", value=bits, threshold=float(self.distance)
        )


def kept_of_hashes(hashes: Hashes, rank: Ids, find: Callable[[Hashes], Iterable[Ids]]) -> Ids:
    """Return the kept representative of each image: (N,) uint64, (N,) rank -> (N,). Equal hashes form one group.

    `find` takes the distinct hashes and yields, in chunks, every pair of positions whose hashes are near each other."""
    distinct, groups = np.unique(hashes, return_inverse=True)
    return representatives_of_items(groups, rank, (chunk.astype(np.uint32) for chunk in find(distinct)))
