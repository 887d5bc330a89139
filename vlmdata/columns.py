"""The columns that a dataset's Parquet files must have, with their types."""

from __future__ import annotations

import pyarrow as pa

from vlmdata.loader.index.index_file import INDEX, INDEX_FILE
from vlmdata.row import IMAGE, ROW, TEXT

# The ledger's fixed columns; its other columns are measurements of steps.
COLUMNS = (
    *("key", "url", "outcome", "step", "reason", "value", "threshold", "cluster", "place", "problem", "shard"),
    *("images", "texts"),
)
PER_IMAGE = ("url", "sha256", "phash", "original_width", "original_height", "drop", "reason", "value", "threshold")
PER_TEXT = ("drop", "reason", "value", "threshold")
LATER = ("place", "problem")  # columns that ledgers of earlier versions lack

_OWN = {
    "outcome": pa.string(),
    "step": pa.string(),
    "shard": pa.string(),
    "images": pa.list_(pa.struct([IMAGE.field(name) for name in PER_IMAGE])),
    "texts": pa.list_(pa.struct([TEXT.field(name) for name in PER_TEXT])),
}
LEDGER = pa.schema([(name, _OWN[name] if name in _OWN else ROW.field(name).type) for name in COLUMNS])
LOOKUP = pa.schema([("hash", pa.int64()), ("row", pa.int32())])


def wrong_columns(name: str, found: pa.Schema) -> list[str]:
    """Return the names of required columns that are missing or have another type. `found` is the schema of the file `name`."""
    wanted = INDEX if name == INDEX_FILE else LEDGER if name.startswith("ledger/") else LOOKUP
    return [field.name for field in wanted if not _fits(field, found)]


def _fits(field: pa.Field, found: pa.Schema) -> bool:
    if field.name not in found.names:
        return field.name in LATER
    kind = found.field(field.name).type
    return kind.equals(field.type) or (pa.types.is_dictionary(field.type) and kind == pa.string())
