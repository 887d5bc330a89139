"""Export as MDS shards, which MosaicML Streaming reads and the source `mds` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Kind, Published, Sample, Shard
from vlmdata.exporting.mds_shards import LARGEST, Form, MdsFiles, list_cell, write_index
from vlmdata.step import RecipeError

CAPTIONS = {"caption": "str", "image": "bytes", "json": "json", "key": "str"}
DOCUMENTS = {"images": "list[jpeg]", "json": "json", "key": "str", "roles": "json", "texts": "json"}
LOADING = 'from streaming import StreamingDataset\n\nStreamingDataset(local="PATH", batch_size=1)'
MEANING = {  # of the columns, for the card
    "caption": "the caption",
    "image": "the bytes of the image file",
    "images": "the images in reading order",
    "json": "the JSON of the sample",
    "key": "the sample's key, a hash of its content",
    "roles": "the role at each position, or null",
    "texts": "a text at each position; null means the next image",
}
Hash = Literal["md5", "sha1", "sha256", "xxh64", "xxh128"]


@dataclass(frozen=True, kw_only=True)
class Mds(Exporter):
    """Write index.json and MDS files of at most `size_limit` bytes. Image bytes stay as they are stored.

    A caption pair has the columns `caption`, `image` (bytes), `json` (the sample's JSON) and `key`. A document or a
    conversation has `images`, `json`, `key`, `roles` and `texts`. Streaming returns `images` as a list of Pillow images.
    `texts` has a text or null for each position, and null means the next image. `roles` has the role at each position, or is
    null. `compression: zstd` writes compressed files. `hashes` states hashes of each file.
    """

    size_limit: int = 1 << 26  # bytes; Streaming's own default
    compression: Literal["zstd"] | None = None
    hashes: list[Hash] = field(default_factory=list)

    def check(self, kind: Kind) -> None:
        if not 1 <= self.size_limit <= LARGEST:
            raise RecipeError(f"size_limit must be between 1 and {LARGEST} bytes, not {self.size_limit}")

    def published(self, layout: str) -> Published:
        columns = CAPTIONS if layout == "captions" else DOCUMENTS
        return Published(None, {name: MEANING[name] for name in columns}, LOADING)

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        columns = CAPTIONS if shard.layout == "captions" else DOCUMENTS
        form = Form(columns, self.size_limit, self.compression, sorted(set(self.hashes)))
        with MdsFiles(draft.files, draft.part(shard.number), f"shard.{shard.number:05d}", form) as files:
            for _ in shard.each(lambda sample: files.add(cells_of(sample))):
                pass
            files.flush()
        return {"shards": files.entries}

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        with (draft.files / "index.json").open("w", encoding="utf-8") as file:
            write_index(file, (entry for record in records for entry in record.notes["shards"]))


def cells_of(sample: Sample) -> dict[str, bytes]:
    """Return the encoded columns of a sample. Raises ValueError if the lists in its JSON are not aligned."""
    same = {"json": sample.members["json"], "key": sample.key.encode()}
    if sample.layout == "captions":
        return {**same, "caption": sample.members["txt"], "image": next(iter(sample.images.values()))}
    facts = sample.facts
    for text, place in zip(facts["texts"], facts["metadata"], strict=True):
        if (text is None) == (place is None) or not isinstance(text, str | None):
            raise ValueError("`texts` and `metadata` are not aligned lists of texts and images")
    images = [sample.members[place["file"]] for place in facts["metadata"] if place is not None]
    return {**same, "images": list_cell(images), "roles": _json(facts.get("roles") or None), "texts": _json(facts["texts"])}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
