"""Reads a dataset's Parquet files in ranges of rows, so that memory does not depend on the size of the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store

RANGE = 20_000  # rows at a time


def schema(store: Store, names: Sequence[str]) -> pa.Schema:
    """Return the union of the files' schemas. The schemas may differ: a file without measured rows lacks some columns."""
    schemas = []
    for name in names:
        with open_parquet(store, name) as file:
            schemas.append(file.schema_arrow)
    return pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])


def ranges(store: Store, names: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of the files as (number, table), with at most RANGE rows per table.

    `number` is the number of rows before the table, counted from the start of the first file.
    """
    first = 0
    for name in names:
        with open_parquet(store, name) as file:
            present = [column for column in file.schema_arrow.names if columns is None or column in columns]
            for batch in file.iter_batches(batch_size=RANGE, columns=present):
                yield first, pa.table(batch)
                first += len(batch)
