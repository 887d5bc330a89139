"""Export as Parquet files with image columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.output.samples_index import sample_of
from vlmdata.engine.output.stored_samples import members, shards
from vlmdata.engine.store.store_protocol import Store
from vlmdata.images.formats import IMAGE_EXTENSIONS

Column = tuple[pa.DataType, dict[str, Any]]  # the type in Arrow, and its description by `datasets`
TEXT: Column = (pa.string(), {"dtype": "string", "_type": "Value"})
IMAGE: Column = (pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"})
GROUP = 100  # samples per row group, as many as on a page of the Hub's viewer


def write(store: Store, draft: Path, layout: str) -> None:
    """Write one Parquet file for each shard. The metadata of the files declares the image columns for `datasets`."""
    found = list(shards(store))
    columns = schema(layout)
    (draft / "data").mkdir()
    for number, (shard, table) in enumerate(found):
        path = draft / "data" / f"train-{number:05d}-of-{len(found):05d}.parquet"
        with pq.ParquetWriter(path, columns, compression="zstd") as writer:
            for start in range(0, len(table), GROUP):
                rows = list(rows_of(store, shard, table.slice(start, GROUP), layout))
                writer.write_table(pa.Table.from_pylist(rows, schema=columns))


def schema(layout: str) -> pa.Schema:
    """Return the columns of this layout, with the types that `datasets` reads from the metadata of a Parquet file."""
    if layout == "captions":
        columns = {"key": TEXT, "image": IMAGE, "caption": TEXT, "json": TEXT}
    else:
        columns = {"key": TEXT, "url": TEXT, "images": _list_of(IMAGE), "texts": _list_of(TEXT), "json": TEXT}
    about = {"info": {"features": {name: facts for name, (_, facts) in columns.items()}}}
    return pa.schema([(name, kind) for name, (kind, _) in columns.items()], {"huggingface": json.dumps(about)})


def _list_of(column: Column) -> Column:
    return pa.list_(column[0]), {"feature": column[1], "_type": "List"}


def rows_of(store: Store, shard: str, table: pa.Table, layout: str) -> Iterator[dict[str, Any]]:
    """Yield a row with the columns of `schema` for each sample of a shard. `table` has the shard's rows of the index."""
    for key, found in members(store, shard, table):
        with sample_of(store, shard, key):
            row = _row(key, found, layout)
        yield row


def _row(key: str, found: dict[str, bytes], layout: str) -> dict[str, Any]:
    """Return a sample as a row. In a document, images and texts are aligned, and one of them is null at each position."""
    facts = json.loads(found["json"])
    text = found["json"].decode()
    pictures = {name: data for name, data in found.items() if name.rpartition(".")[2] in IMAGE_EXTENSIONS}
    if layout == "captions":
        name, data = next(iter(pictures.items()))
        return {"key": key, "image": {"bytes": data, "path": f"{key}.{name}"}, "caption": found["txt"].decode(), "json": text}
    images = [
        None if place is None else {"bytes": pictures[place["file"]], "path": f"{key}.{place['file']}"}
        for place in facts["metadata"]
    ]
    return {"key": key, "url": facts["url"], "images": images, "texts": facts["texts"], "json": text}
