"""Arrow tables with image columns, as the library `datasets` stores and shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.exporting.exporter import Sample

FILES = "data/train-*.parquet"  # pattern of the names that `parquet_name` gives
GROUP = 100  # samples per row group, as many as on a page of the Hub's viewer

TEXT: dict[str, Any] = {"dtype": "string", "_type": "Value"}
IMAGE: dict[str, Any] = {"_type": "Image"}
_TYPES = {"Image": pa.struct({"bytes": pa.binary(), "path": pa.string()})}


def list_of(feature: Any) -> list[Any]:
    """Return the feature of a list. Every version of `datasets` reads this form; before 4.0 it had no `List`."""
    return [feature]


def schema_of(features: Mapping[str, Any]) -> pa.Schema:
    """Return the Arrow schema of columns, with the features of `datasets` as metadata.

    `features` is as in the metadata that `datasets` writes: TEXT, IMAGE, `list_of(...)`, or a mapping for a struct.
    """
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema({name: _type(feature) for name, feature in features.items()}, metadata=metadata)


def _type(feature: Any) -> pa.DataType:
    if isinstance(feature, list):
        return pa.list_(_type(feature[0]))
    kind = feature.get("_type")
    if not isinstance(kind, str):
        return pa.struct({name: _type(inner) for name, inner in feature.items()})
    if kind == "Value":
        return pa.type_for_alias(feature["dtype"])
    return _TYPES[kind]


def image_cell(sample: Sample, member: str) -> dict[str, Any]:
    """Return an image member as the value of an image column, with the bytes as they are stored."""
    return {"bytes": sample.members[member], "path": f"{sample.key}.{member}"}


def tables(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield rows as tables of at most GROUP rows."""
    left = iter(rows)
    while group := list(islice(left, GROUP)):
        yield pa.Table.from_pylist(group, schema=schema)


def write_parquet(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows to a Parquet file, with GROUP rows in a row group."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables(rows, schema):
            writer.write_table(table)


def parquet_name(number: int, count: int) -> str:
    """Return the name of a shard's Parquet file, from which `datasets` and the Hub see that it belongs to the split `train`."""
    return f"data/train-{number:05d}-of-{count:05d}.parquet"
