"""Find rows with nearly the same text by the Jaccard similarity of their n-grams, with MinHash, and keep one of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import alive, flatten, in_one, numbers, set_column
from vlmdata.similarity.clusters import best_first, representatives_of_items
from vlmdata.similarity.distributed import buckets_for, jaccards, lsh_pairs, packed, starts_of
from vlmdata.similarity.grams import Grams
from vlmdata.similarity.hamming import equal_groups
from vlmdata.similarity.lsh import apart, band_keys, bands_for, similar_texts
from vlmdata.similarity.minhash import grams_of, jaccard, sketch
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.verdict import drop_duplicate_rows
from vlmdata.step import DistributedSearch, RecipeError, Step

OWN_ORDERS = ("longest", "earliest")
RECALL = 0.99  # probability that a pair exactly at the threshold is found


@dataclass(frozen=True, kw_only=True)
class DedupeMinhash(Step):
    """Keep the best of the rows whose texts have a Jaccard similarity of at least `threshold`.

    The remaining texts of a row are joined, and the sets of n-grams of two rows are compared. The exact similarity of each pair
    is computed, so no row is rejected for a similarity below the threshold. A pair exactly at the threshold is found with a
    probability of at least 99%. A row without words stays.
    """

    id: ClassVar = "vlmdata.steps.dedupe_minhash"
    example: ClassVar = "- dedupe_minhash: {threshold: 0.8, keep: [longest]}"
    changes: ClassVar = ("cluster",)
    sees_all: ClassVar = True
    distribute_above: ClassVar = 5_000_000  # rows, for which the driver holds 3 GB of texts (100 words each) and 3 GB of hashes
    limits: ClassVar = {"similar_text": ">= threshold"}

    threshold: Annotated[
        float,
        Doc(
            "Two rows are duplicates if the Jaccard similarity of their n-grams is at least this.",
            unit="Jaccard similarity, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.8
    n: Annotated[
        int, Doc("Words or characters of an n-gram.", unit="words or characters", source="OBELICS, which uses 5-grams")
    ] = 5
    grams: Annotated[
        Literal["words", "characters"], Doc("What n-grams consist of. characters: for languages without spaces between words.")
    ] = "words"
    permutations: Annotated[
        int,
        Doc(
            "Number of hashes of a row with which candidates are found.",
            unit="hashes",
            source="vlmdata's choice; OBELICS uses 16",
        ),
    ] = 128
    keep: Annotated[
        tuple[str, ...],
        Doc(
            "Order of preference for the row that stays: `longest`, `earliest` or measured scores of rows. In a tie, "
            "the least key stays.",
            source="vlmdata's choice",
        ),
    ] = ("longest",)

    def check(self) -> None:
        if not 0 < self.threshold <= 1 or self.n < 1:
            raise RecipeError(f"{self.name}: threshold must lie in (0, 1] and n must be at least 1")
        try:
            bands_for(self.threshold, self.permutations, RECALL)
        except ValueError as error:
            raise RecipeError(f"{self.name}: {error}") from None

    def columns_read(self) -> tuple[str, ...]:
        return ("texts.text", *(name for name in self.keep if name not in OWN_ORDERS))

    def decide(self, rows: pa.Table) -> pa.Table:
        places, texts = living_texts(rows)
        make = self._grams()
        pairs, groups, starts = similar_texts(texts, self.threshold, make, permutations=self.permutations)
        rank = self._rank(rows, places, np.fromiter(map(len, texts), np.float64, len(texts)))
        representatives = representatives_of_items(numbers_of(groups, starts), rank, [pairs])
        lost = np.flatnonzero(representatives != np.arange(len(representatives)))
        return self._drop(rows, places, representatives, jaccard(np.stack([lost, representatives[lost]], axis=1), texts, make))

    def piece(self, rows: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        places, texts = living_texts(rows)
        sketches = sketch(texts, self._grams(), permutations=self.permutations)
        data, ends = packed(texts)
        lengths, fingerprints = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.uint64)
        lengths[places], fingerprints[places] = list(map(len, texts)), sketches.fingerprints
        keys = band_keys(sketches.signatures, *bands_for(self.threshold, self.permutations, RECALL))
        rows = set_column(rows.drop_columns(["texts"]), "length", pa.array(lengths))
        return set_column(rows, "fingerprint", pa.array(fingerprints)), {"keys": keys, "data": data, "ends": ends}

    def decide_distributed(self, rows: pa.Table, search: DistributedSearch) -> pa.Table:
        places = np.flatnonzero(alive(rows))
        fingerprints = rows["fingerprint"].to_numpy()[places]
        _, groups, starts = equal_groups(apart(fingerprints))
        first = np.sort(groups[starts[:-1]])
        first = first[fingerprints[first] != 0]
        texts = [(piece["data"], piece["ends"]) for piece in search.pieces]
        begins = starts_of([ends for _, ends in texts])
        cuts = np.searchsorted(first, begins)
        chosen = [search.keep(first[cuts[n] : cuts[n + 1]] - begins[n]) for n in range(len(texts))]
        group_of = numbers_of(groups, starts)
        found = lsh_pairs(search.named("keys"), search.run, buckets=buckets_for(len(first)), chosen=chosen)
        candidates = np.concatenate([np.zeros((0, 2), np.int64), *found])
        alike = candidates[jaccards(texts, begins, candidates, self._grams(), search.run) >= self.threshold]
        rank = self._rank(rows, places, rows["length"].to_numpy()[places].astype(np.float64))
        representatives = representatives_of_items(group_of, rank, [group_of[alike]])
        lost = np.flatnonzero(representatives != np.arange(len(representatives)))
        pairs = np.stack([lost, representatives[lost]], axis=1)
        return self._drop(rows, places, representatives, jaccards(texts, begins, pairs, self._grams(), search.run))

    def _grams(self) -> Callable[[Sequence[str]], Grams]:
        return grams_of(self.n, characters=self.grams == "characters")

    def _rank(self, rows: pa.Table, places: Ids, lengths: np.ndarray) -> Ids:
        own = {"longest": lengths, "earliest": -places.astype(np.float64)}
        columns = [own[name] if name in own else np.round(numbers(in_one(rows[name]))[places], 4) for name in self.keep]
        return best_first(*columns, keys=in_one(rows["key"]).take(pa.array(places)))

    def _drop(self, rows: pa.Table, places: Ids, representatives: Ids, similarity: np.ndarray) -> pa.Table:
        """Reject each row whose representative is another row. `similarity` holds one value for each rejected row, in order."""
        value = np.full(len(representatives), np.nan)
        value[representatives != np.arange(len(representatives))] = np.round(similarity, 4)
        return drop_duplicate_rows(
            rows, places, representatives, self.name, "similar_text", value=value, threshold=self.threshold
        )


def living_texts(rows: pa.Table) -> tuple[Ids, list[str]]:
    """Return the positions of the remaining rows, and for each of these rows its remaining texts, joined by newlines."""
    flat = flatten(rows, "texts")
    parts: list[list[str]] = [[] for _ in range(len(rows))]
    for text, row, here in zip(flat.field("text").to_pylist(), flat.parents.tolist(), flat.alive().tolist(), strict=True):
        if here and text:
            parts[row].append(text)
    places = np.flatnonzero(alive(rows))
    return places, ["\n".join(parts[row]) for row in places.tolist()]


def numbers_of(groups: Ids, starts: Ids) -> Ids:
    """Return the group number of each item. `groups` and `starts` are the result of `equal_groups`."""
    numbers = np.empty(len(groups), np.int64)
    numbers[groups] = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return numbers
