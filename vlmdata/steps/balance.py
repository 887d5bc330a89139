"""Limit how many rows each entry of a list selects, to balance concepts (MetaCLIP)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_rows, flatten
from vlmdata.similarity.ngrams import contained
from vlmdata.splitmix import mixed
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class Balance(Step):
    """Draw rows for each entry of a list, and keep a row if it is drawn for at least one entry.

    A row whose texts contain an entry is drawn for this entry with the probability `min(1, cap / count)`, where count is the
    number of remaining rows that contain the entry. A row that contains no entry is rejected. Other rows affect a draw only
    through the counts. Source: Xu et al. 2023, MetaCLIP, which uses 500,000 entries and a cap of 20,000 for 400 million pairs.
    MetaCLIP draws without a seed. Here a draw is a hash of the row's key, the entry and the seed, so every run gives the same
    result.
    """

    id: ClassVar = "vlmdata.steps.balance"
    example: ClassVar = "- balance: {entries: entries.txt, cap: 20000}"
    reads: ClassVar = ("texts",)
    sees_all: ClassVar = True

    entries: Annotated[str, Doc("Text file with one entry per line. An entry is one or more whole words.")]
    cap: Annotated[
        int,
        Doc(
            "Number of rows that are drawn for each entry, on average. An entry with fewer rows keeps them all.",
            unit="rows",
            source="MetaCLIP (Xu et al. 2023), for 400 million pairs",
        ),
    ] = 20_000
    seed: Annotated[int, Doc("Seed of the draws. Another seed draws other rows.", unit="any whole number")] = 0

    def check(self) -> None:
        if not Path(at_home(self.entries)).is_file():
            raise RecipeError(f"{self.name}.entries: there is no file {self.entries}")
        if self.cap < 1:
            raise RecipeError(f"{self.name}.cap must be at least 1, not {self.cap}")

    def decide(self, rows: pa.Table) -> pa.Table:
        entries = Path(at_home(self.entries)).read_text(encoding="utf-8").splitlines()
        texts = flatten(rows, "texts")
        places = np.flatnonzero(texts.alive() & alive(rows)[texts.parents])
        found = contained(texts.field("text").take(pa.array(places)).to_pylist(), entries)
        pairs = np.unique(np.stack([texts.parents[places[found[:, 0]]], found[:, 1]], axis=1), axis=0)  # (row, entry)
        chance = np.minimum(1, self.cap / np.maximum(np.bincount(pairs[:, 1], minlength=len(entries)), 1))[pairs[:, 1]]
        is_drawn = draws(rows["key"].to_pylist(), entries, pairs, self.seed) < chance
        matched, drawn, best = np.zeros(len(rows), bool), np.zeros(len(rows), bool), np.zeros(len(rows))
        matched[pairs[:, 0]] = True
        drawn[pairs[is_drawn, 0]] = True
        np.maximum.at(best, pairs[:, 0], chance)
        rows = drop_rows(rows, ~matched, self.name, reason="no_entry")
        return drop_rows(rows, ~drawn, self.name, reason="not_drawn", value=best)


def draws(keys: list[str], entries: list[str], pairs: np.ndarray, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each pair (row, entry) in `pairs` (P, 2): a hash of the row's key, the entry and `seed`."""
    row_hashes = np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in keys], np.uint64)
    entry_hashes = np.array([xxhash.xxh3_64_intdigest(entry.encode(), seed) for entry in entries], np.uint64)
    return (mixed(row_hashes[pairs[:, 0]] + mixed(entry_hashes[pairs[:, 1]])) >> np.uint64(11)) * 2.0**-53
