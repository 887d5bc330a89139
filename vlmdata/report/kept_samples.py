"""Computes statistics of the kept samples from the index."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow.compute as pc

from vlmdata.engine.output.samples_index import open_index
from vlmdata.engine.store.store_protocol import Store
from vlmdata.report.tally_numbers import NumberTally
from vlmdata.row import numbers


@dataclass
class Stored:
    """Sums and tallies over the samples in the tars."""

    images: int = 0
    characters: int = 0
    text_length: NumberTally = field(default_factory=NumberTally)  # characters in each sample
    sample_bytes: NumberTally = field(default_factory=NumberTally)  # bytes of each sample in the tar
    images_each: NumberTally = field(default_factory=NumberTally)  # images in each sample


def stored(store: Store) -> Stored:
    """Read the index once and return the statistics."""
    sums = Stored()
    with open_index(store) as index:
        for rows in index.groups(("text_chars", "size", "images")):
            chars, counts = numbers(rows["text_chars"]), numbers(pc.list_value_length(rows["images"]))
            sums.text_length.add(chars)
            sums.sample_bytes.add(numbers(rows["size"]))
            sums.images_each.add(counts)
            sums.images += int(counts[counts == counts].sum())
            sums.characters += int(chars[chars == chars].sum())
    return sums
