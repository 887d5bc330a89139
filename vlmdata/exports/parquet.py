"""Export as Parquet files with image columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmdata.exporting.draft import Draft
from vlmdata.exporting.exporter import Exporter, Published, Sample, Shard
from vlmdata.exporting.image_columns import FILES, IMAGE, TEXT, image_cell, list_of, parquet_name, schema_of, write_parquet

COLUMNS: Mapping[str, Mapping[str, str]] = {  # by layout: what each column holds, for the card
    "captions": {
        "key": "the sample's key, a hash of its content",
        "image": "the image",
        "caption": "the caption",
        "json": "JSON text: address, sizes, hashes and scores of the image, and the source's other columns",
    },
    "documents": {
        "key": "the document's key, a hash of its content",
        "url": "the address of the page",
        "images": "images in reading order, null at the positions of texts",
        "texts": "texts in reading order, null at the positions of images",
        "json": "JSON text: addresses, sizes and hashes of the images, scores, and the source's other columns",
    },
}


@dataclass(frozen=True, kw_only=True)
class Parquet(Exporter):
    """Write one Parquet file for each shard. The metadata of the files declares the image columns for `datasets`."""

    version = 2

    def published(self, layout: str) -> Published:
        return Published(FILES, COLUMNS[layout])

    def write_shard(self, shard: Shard, draft: Draft) -> None:
        (draft.files / "data").mkdir(exist_ok=True)
        path = draft.files / parquet_name(shard.number, shard.count)
        write_parquet(path, shard.each(row_of), schema_of(features(shard.layout)))


def features(layout: str) -> dict[str, Any]:
    """Return the columns of this layout, for `schema_of`."""
    if layout == "captions":
        return {"key": TEXT, "image": IMAGE, "caption": TEXT, "json": TEXT}
    return {"key": TEXT, "url": TEXT, "images": list_of(IMAGE), "texts": list_of(TEXT), "json": TEXT}


def row_of(sample: Sample) -> dict[str, Any]:
    """Return a sample as a row. In a document, images and texts are aligned, and one of them is null at each position."""
    text = sample.members["json"].decode()
    if sample.layout == "captions":
        caption, image = sample.members["txt"].decode(), next(iter(sample.images))
        return {"key": sample.key, "image": image_cell(sample, image), "caption": caption, "json": text}
    facts = sample.facts
    images = [None if place is None else image_cell(sample, place["file"]) for place in facts["metadata"]]
    return {"key": sample.key, "url": facts["url"], "images": images, "texts": facts["texts"], "json": text}
