"""Keep one of rows with nearly the same text: Jaccard similarity of word or character n-grams, found by MinHash."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.row import alive, flatten, numbers
from vlmdata.similar.clusters import best_first, best_of_groups, leaders
from vlmdata.similar.lsh import bands_for, similar_texts
from vlmdata.similar.minhash import grams_of, jaccard
from vlmdata.similar.verdict import drop_duplicate_rows
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupeMinhash(Step):
    """Of rows whose living texts, joined, share n-grams with a Jaccard similarity of `threshold` or more keep the best.

    Every similarity is verified, so no row goes for one less alike; a pair right at the threshold is found with 99%
    probability or more. A row without words stays.
    """

    reads: ClassVar = ("texts",)
    changes: ClassVar = ("cluster",)
    sees_all: ClassVar = True

    threshold: float = 0.8
    n: int = 5
    grams: Literal["words", "characters"] = "words"  # characters: for languages that do not part words by spaces
    permutations: int = 128
    keep: tuple[str, ...] = ("longest",)  # or measured columns of rows; then the least key

    def check(self) -> None:
        if not 0 < self.threshold <= 1 or self.n < 1:
            raise RecipeError(f"{self.name}: needs a threshold in (0, 1] and n of at least 1")
        try:
            bands_for(self.threshold, self.permutations, 0.99)
        except ValueError as error:
            raise RecipeError(f"{self.name}: {error}") from None

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, *(name for name in self.keep if name != "longest"))

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        living = flat.alive()
        parts: list[list[str]] = [[] for _ in range(len(rows))]
        for text, row, here in zip(flat.field("text").to_pylist(), flat.parents.tolist(), living.tolist(), strict=True):
            if here and text:
                parts[row].append(text)
        places = np.flatnonzero(alive(rows))
        texts = ["\n".join(parts[row]) for row in places.tolist()]
        rank = self._rank(rows, places, texts)
        make = grams_of(self.n, characters=self.grams == "characters")
        pairs, groups, starts = similar_texts(texts, self.threshold, make, permutations=self.permutations)
        group_of = np.empty(len(texts), np.int64)
        group_of[groups] = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        best = best_of_groups(group_of, rank)
        order = np.empty(len(best), np.int64)
        order[np.argsort(rank[best])] = np.arange(len(best))
        stands = best[leaders(order, [pairs])][group_of]
        lost = np.flatnonzero(stands != np.arange(len(stands)))
        value = np.full(len(texts), np.nan)
        value[lost] = jaccard(np.stack([lost, stands[lost]], axis=1), texts, make)
        return drop_duplicate_rows(
            rows, places, stands, self.name, "similar_text", value=np.round(value, 4), threshold=self.threshold
        )

    def _rank(self, rows: pa.Table, places: np.ndarray, texts: list[str]) -> np.ndarray:
        lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        columns = [
            lengths if name == "longest" else np.round(numbers(rows[name].combine_chunks())[places], 4) for name in self.keep
        ]
        return best_first(*columns, keys=np.asarray(rows["key"].to_pylist(), dtype=str)[places])
