"""The Parquet files of a dataset: a damaged one is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.store import Store, store_file
from vlmdata.step import RecipeError


@contextlib.contextmanager
def open_parquet(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    """Open a file for the block. Raises RecipeError, naming it, where it turns out to be damaged when it is read."""
    with store_file(store, name) as opened:
        try:
            yield pq.ParquetFile(opened, page_checksum_verification=True)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
                raise
            why = " ".join(str(error).split())[:120]
            raise RecipeError(f"{store.url}/{name} is damaged: {why}. Restore it, or build the dataset again") from None
