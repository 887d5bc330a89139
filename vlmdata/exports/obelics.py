"""Export documents in OBELICS's form, which the source `obelics_parquet` reads back: Parquet with aligned lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmdata.exporting.draft import Draft
from vlmdata.exporting.exporter import Exporter, Published, Sample, Shard, Unsuitable
from vlmdata.exporting.image_columns import FILES, IMAGE, TEXT, image_cell, list_of, parquet_name, schema_of, write_parquet
from vlmdata.fields import FIELDS

SIZES = ("original_width", "original_height", "rendered_width", "rendered_height")


@dataclass(frozen=True, kw_only=True)
class Obelics(Exporter):
    """Write one Parquet file for each shard, with OBELICS's columns `images`, `texts`, `metadata` and `general_metadata`.

    At each position one of `images` and `texts` is null. `metadata` is a JSON list with `src`, `alt_text` and sizes of each
    image, and `general_metadata` is a JSON object with the page's `url` and the source's other columns. With `images: bytes`,
    an image is its bytes, in an image column of the library `datasets`. With `images: urls`, it is its address, as in the
    published dataset, and a reader must fetch it again; a document with an image that has no address is left out.
    """

    holds = ("documents",)
    version = 2

    images: Literal["bytes", "urls"] = "bytes"

    def published(self, layout: str) -> Published:
        images = "images" if self.images == "bytes" else "addresses of the images"
        columns = {
            "images": f"{images} in reading order, null at the positions of texts",
            "texts": "texts in reading order, null at the positions of images",
            "metadata": "JSON text: for each image its address, alternative text and sizes",
            "general_metadata": "JSON text: the address of the page, and the source's other columns",
        }
        return Published(FILES, columns)

    def write_shard(self, shard: Shard, draft: Draft) -> None:
        (draft.files / "data").mkdir(exist_ok=True)
        column = list_of(IMAGE if self.images == "bytes" else TEXT)
        schema = schema_of({"images": column, "texts": list_of(TEXT), "metadata": TEXT, "general_metadata": TEXT})
        write_parquet(draft.files / parquet_name(shard.number, shard.count), shard.each(self.row_of), schema)

    def row_of(self, sample: Sample) -> dict[str, Any]:
        """Return a document as a row. Raises Unsuitable if an address is needed and missing."""
        facts = sample.facts
        places = zip(facts["metadata"], facts["images"], strict=True)
        metadata = [None if place is None else _metadata(place, address, facts.get("url")) for place, address in places]
        if self.images == "bytes":
            images = [None if place is None else image_cell(sample, place["file"]) for place in facts["metadata"]]
        else:
            images = [None if entry is None else entry.get("src") for entry in metadata]
            if any(entry is not None and image is None for entry, image in zip(metadata, images, strict=True)):
                raise Unsuitable("one of its images has no address, and `images: urls` stores only addresses")
        own = {name: value for name, value in facts.items() if name not in FIELDS}
        about = json.dumps({"url": facts.get("url"), **own}, ensure_ascii=False)
        row = {"images": images, "texts": facts["texts"], "metadata": json.dumps(metadata, ensure_ascii=False)}
        return {**row, "general_metadata": about}


def _metadata(place: Mapping[str, Any], address: str | None, page: str | None) -> dict[str, Any]:
    """Return an image's metadata with OBELICS's names. Facts that are not known are left out."""
    found = {"document_url": page, "src": address, "alt_text": place.get("alt"), **{name: place.get(name) for name in SIZES}}
    found["format"] = place["file"].rpartition(".")[2]
    return {name: value for name, value in found.items() if value is not None}
