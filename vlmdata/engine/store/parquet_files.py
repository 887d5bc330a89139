"""The published Parquet files of a dataset: a damaged one is named."""

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
    """Open a file for the block: the index, one of the ledger or of the lookup.

    Raises RecipeError, naming it, where it lacks columns of its kind or turns out to be damaged when it is read.
    """
    with store.open(name) as opened:
        try:
            file = pq.ParquetFile(opened, page_checksum_verification=True)
            if wrong := wrong_columns(name, file.schema_arrow):
                raise damage(store, name, f"its columns {', '.join(wrong)} are missing or of other types")
            yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
                raise
            raise damage(store, name, error) from None


def bounds(metadata: pq.FileMetaData, number: int) -> tuple[int, int]:
    """Return the least and the largest number of the first column in a row group. Raises ArrowInvalid for a damaged footer.

    Arrow ends the process where what the footer says of a column in a row group is at odds with what it says of the column.
    """
    column = metadata.schema.column(0)
    is_ours = (column.max_definition_level, column.max_repetition_level) == (1, 0)
    chunk = metadata.row_group(number).column(0) if is_ours else None
    found = chunk.statistics if chunk is not None and chunk.physical_type == column.physical_type else None
    if found is None or not found.has_min_max or not (isinstance(found.min, int) and isinstance(found.max, int)):
        raise pa.ArrowInvalid(f"row group {number} does not say what numbers it holds")
    return found.min, found.max


def damage(store: Store, name: str, why: object) -> RecipeError:
    """Return the error that names a damaged file and says what to do."""
    said = " ".join(str(why).split())[:300]
    return RecipeError(f"{store.url}/{name} is damaged: {said}. Restore it, or build the dataset again")
