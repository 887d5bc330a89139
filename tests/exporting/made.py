"""Datasets for tests of exports, written directly, without a run. A million tiny samples take a minute."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.sources.pictures import picture
from vlmdata.engine.output.pack import BLOCK, INDEX_FORMAT, RECORD, header
from vlmdata.loader.index.index_file import INDEX, IndexRow, index_table

IMAGE = picture(8, 6)
Made = tuple[str, dict[str, bytes]]


def key_of(number: int) -> str:
    """Return a key of 24 hex digits, like the keys of a run."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:24]


def caption(number: int) -> Made:
    """Return a caption pair as (key, members)."""
    key, text = key_of(number), f"picture {number}"
    facts = {"key": key, "url": f"https://example.org/{number}.png", "caption": text, "width": 8, "height": 6}
    return key, {"json": json.dumps(facts).encode(), "png": IMAGE, "txt": text.encode()}


def document(number: int, parts: Sequence[str | bytes], **facts: Any) -> Made:
    """Return a document as (key, members). A text is a part, and so are the bytes of an image."""
    key = key_of(number)
    members: dict[str, bytes] = {}
    metadata: list[dict[str, Any] | None] = []
    for part in parts:
        if isinstance(part, bytes):
            name = f"{len(members)}.png"
            members[name] = part
            metadata.append({"file": name, "width": 8, "height": 6})
        else:
            metadata.append(None)
    aligned = {
        "texts": [None if isinstance(part, bytes) else part for part in parts],
        "images": [None if entry is None else f"https://example.org/{number}/{entry['file']}" for entry in metadata],
        "metadata": metadata,
        "files": [None if entry is None else f"{key}.{entry['file']}" for entry in metadata],
    }
    return key, {**members, "json": json.dumps({"key": key, "url": None, **aligned, **facts}).encode()}


def chat(number: int, *turns: str | bytes, **facts: Any) -> Made:
    """Return a conversation as (key, members). By default, it has a question about an image, and an answer."""
    parts = turns or (IMAGE, f"question {number}?", f"answer {number}")
    roles = facts.pop("roles", ["user"] * (len(parts) - 1) + ["assistant"])
    return document(number, parts, roles=roles, **facts)


def make_dataset(out: Path, samples: Iterable[Made], *, layout: str, per_shard: int = 1000) -> int:
    """Write a finished dataset and return the number of its samples. It has tars, an index and a manifest, and no ledger."""
    out.mkdir(parents=True)
    left = iter(samples)
    files: dict[str, Any] = {}
    with pq.ParquetWriter(out / "index.parquet", INDEX, **INDEX_FORMAT) as index:
        while group := list(islice(left, per_shard)):
            name = f"{len(files):05d}.tar"
            index.write_table(index_table(list(_written(out / name, name, group))))
            files[name] = {"bytes": os.path.getsize(out / name), "samples": len(group), "sha256": hashlib.sha256().hexdigest()}
    kept = sum(facts["samples"] for facts in files.values())
    recipe = {
        "source": {"type": "webdataset"},
        "steps": [],
        "shards": {"samples": per_shard, "layout": layout},
        "part_rows": 1000,
    }
    manifest = {"rows": kept, "kept": kept, "dropped": [], "source": "", "recipe": recipe, "files": files}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return kept


def _written(path: Path, name: str, group: Sequence[Made]) -> Iterator[IndexRow]:
    position = 0
    with path.open("wb") as tar:
        for key, members in group:
            start, places = position, []
            for member, data in sorted(members.items()):
                tar.write(header(f"{key}.{member}", len(data)) + data + bytes(-len(data) % BLOCK))
                places.append((member, position + BLOCK, len(data)))
                position += BLOCK + len(data) + -len(data) % BLOCK
            yield IndexRow(key, name, start, position - start, places, 0, [])
        tar.write(bytes(2 * BLOCK) + bytes(-(position + 2 * BLOCK) % RECORD))


def content(folder: Path) -> Mapping[str, bytes]:
    """Return the content of every file in a folder, by its name within the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
