"""Reads the samples of a finished dataset, shard by shard, as its index lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import pyarrow as pa

from vlmdata.engine.output.samples_index import SamplesIndex, open_index, read_open
from vlmdata.engine.store.store_protocol import Store

_report: ContextVar[Callable[[int], None] | None] = ContextVar("report", default=None)


@contextmanager
def reported(report: Callable[[int], None]) -> Iterator[None]:
    """Let `members` call `report(1)` after each sample, while the `with` block runs in this thread."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def by_shard(index: SamplesIndex) -> Iterator[tuple[str, pa.Table]]:
    """Yield, for every shard, its name and the index rows of its samples.

    In the index, the rows of a shard are contiguous, but a row group may hold rows of several shards.
    """
    rest: pa.Table | None = None
    for group in index.groups():
        rest = group if rest is None else pa.concat_tables([rest, group])
        shards = rest["shard"].cast(pa.string()).to_numpy()
        ends = [*(np.flatnonzero(shards[1:] != shards[:-1]) + 1)]
        for start, end in zip([0, *ends], ends, strict=False):
            yield shards[start], rest.slice(start, end - start)
        rest = rest.slice(ends[-1]) if ends else rest
    if rest is not None and len(rest):
        yield rest["shard"][0].as_py(), rest


def shards(store: Store) -> Iterator[tuple[str, pa.Table]]:
    """Yield the name of every shard of a dataset with its rows of the index."""
    with open_index(store) as index:
        yield from by_shard(index)


def members(store: Store, shard: str, table: pa.Table) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the key and the members of every sample of a shard. `table` holds the shard's rows of the index."""
    report = _report.get()
    with store.open(shard) as tar:
        for key, listed in zip(table["key"].to_pylist(), table["members"].to_pylist(), strict=True):
            yield key, {one["name"]: read_open(store, shard, tar, one["offset"], one["size"]) for one in listed}
            if report is not None:
                report(1)
