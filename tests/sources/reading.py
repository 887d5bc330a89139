"""Read all rows of a source as the engine does."""

import json
from typing import Any

import pyarrow as pa

from vlmdata.row import conform
from vlmdata.step import Source


def read_all(source: Source) -> pa.Table:
    """Check the source, then read its pieces into one table. The pieces pass through JSON, as in the plan."""
    source.check()
    pieces = json.loads(json.dumps(source.pieces()))
    tables = [conform(table) for piece in pieces for table in source.read(piece)]
    return pa.concat_tables([table.drop_columns([n for n in table.column_names if n == "id"]) for table in tables])


def pairs_of(rows: pa.Table) -> list[tuple[Any, Any, Any]]:
    """Return (address, text, reason) of each row of caption pairs."""
    return [
        (
            next((image["url"] for image in row["images"] or [] if image), None),
            next((text["text"] for text in row["texts"] or [] if text), None),
            row["reason"],
        )
        for row in rows.to_pylist()
    ]
