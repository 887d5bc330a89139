"""Reading a dataset's ledger and index a stretch at a time, by ranges, so that their size does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store

STRETCH = 20_000  # rows at a time


def schema(store: Store, names: Sequence[str]) -> pa.Schema:
    """Return the columns of all files together: a file whose rows nobody measured lacks some."""
    schemas = []
    for name in names:
        with open_parquet(store, name) as file:
            schemas.append(file.schema_arrow)
    return pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])


def stretches(store: Store, names: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables of at most STRETCH rows of these files, each with the number of its first row."""
    first = 0
    for name in names:
        with open_parquet(store, name) as file:
            present = [column for column in file.schema_arrow.names if columns is None or column in columns]
            for batch in file.iter_batches(batch_size=STRETCH, columns=present):
                yield first, pa.table(batch)
                first += len(batch)
