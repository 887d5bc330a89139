"""Reads the published Parquet files of a dataset. Errors name the damaged file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.columns import wrong_columns
from vlmdata.engine.store.store_protocol import Store
from vlmdata.step import RecipeError


@contextlib.contextmanager
def open_parquet(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    """Open the index, a ledger file or a lookup file for a `with` block.

    Raises RecipeError, which names the file, if columns are missing or have wrong types, or if a read inside the block finds
    damage.
    """
    with store.open(name) as opened:
        try:
            file = pq.ParquetFile(opened, page_checksum_verification=True)
            if wrong := wrong_columns(name, file.schema_arrow):
                raise damage(store, name, f"its columns {', '.join(wrong)} are missing or have wrong types")
            yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
                raise
            raise damage(store, name, error) from None


def bounds(metadata: pq.FileMetaData, number: int) -> tuple[int, int]:
    """Return the minimum and maximum of the first column in a row group. Raises ArrowInvalid for a damaged footer.

    Types are compared before statistics are read, because Arrow aborts the process if a footer states two types for a column.
    """
    column = metadata.schema.column(0)
    is_ours = (column.max_definition_level, column.max_repetition_level) == (1, 0)
    chunk = metadata.row_group(number).column(0) if is_ours else None
    found = chunk.statistics if chunk is not None and chunk.physical_type == column.physical_type else None
    if found is None or not found.has_min_max or not (isinstance(found.min, int) and isinstance(found.max, int)):
        raise pa.ArrowInvalid(f"row group {number} does not state the minimum and maximum of its first column")
    return found.min, found.max


def damage(store: Store, name: str, why: object) -> RecipeError:
    """Return the error that names a damaged file and says how to fix it."""
    reason = " ".join(str(why).split())[:300]
    return RecipeError(f"{store.url}/{name} is damaged: {reason}. Restore it, or build the dataset again")
