"""A dataset in other forms: Parquet with image columns, a Hugging Face dataset on disk, plain folders of files, or messages.

Images are copied byte for byte, never decoded, and every member of every sample goes along unchanged; but as messages a
conversation goes without what was measured of it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.dataset import read_manifest
from vlmdata.engine.base import Store
from vlmdata.engine.index import open_index, read_open, sample_of
from vlmdata.engine.open import open_store
from vlmdata.engine.rewrite import by_shard
from vlmdata.export_messages import LIST, as_line
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.step import RecipeError

FORMS = ("parquet", "hf", "folder", "messages")
GROUP = 100  # samples of one row group: the Hub's viewer reads a page of that many
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` stores images


def export(out: str | Path, to: str, target: str | Path) -> int:
    """Write a finished dataset in another form to a folder that does not exist yet, and return the number of samples.

    The folder appears when all of it is written. Raises RecipeError for an unknown form, a target that exists, and as messages
    for what is no conversation.
    """
    if to not in FORMS:
        raise RecipeError(f"there is no form '{to}'; there is: {', '.join(FORMS)}")
    target = Path(target).absolute()
    if target.exists():
        raise RecipeError(f"{target} exists; name a folder that does not")
    manifest = read_manifest(out)
    store = open_store(out, probe=False)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        if manifest["kept"]:
            _write(store, draft, to, manifest["recipe"]["shards"]["layout"])
    except RecipeError:
        _remove(draft)
        raise
    os.rename(draft, target)
    return manifest["kept"]


def _write(store: Store, draft: Path, to: str, layout: str) -> None:
    if to == "folder":
        _folder(store, draft)
    elif to == "messages":
        _messages(store, draft)
    else:
        (_parquet if to == "parquet" else _hugging_face)(store, draft, layout)


def members(store: Store, shard: str, table: pa.Table) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of every sample of a shard, given its rows of the index."""
    with store.open(shard) as tar:
        for key, listed in zip(table["key"].to_pylist(), table["members"].to_pylist(), strict=True):
            yield key, {one["name"]: read_open(store, shard, tar, one["offset"], one["size"]) for one in listed}


def _shards(store: Store) -> Iterator[tuple[str, pa.Table]]:
    with open_index(store) as index:
        yield from by_shard(index)


def _folder(store: Store, draft: Path) -> None:
    """Write each member to its own file, `ab/abcd….jpg`: key by key in 256 folders."""
    for shard, table in _shards(store):
        for key, found in members(store, shard, table):
            folder = draft / key[:2]
            folder.mkdir(exist_ok=True)
            for name, data in found.items():
                (folder / f"{key}.{name}").write_bytes(data)


def _messages(store: Store, draft: Path) -> None:
    """Write one list of messages, with the images that it names beside it."""
    with (draft / LIST).open("w", encoding="utf-8") as file:
        for shard, table in _shards(store):
            for key, found in members(store, shard, table):
                with sample_of(store, shard, key):
                    file.write(as_line(key, found, draft))


def _parquet(store: Store, draft: Path, layout: str) -> None:
    """Write one Parquet file for each shard, whose metadata tells `datasets` what the image columns are."""
    shards = [(shard, table) for shard, table in _shards(store)]
    schema = _schema(layout)
    (draft / "data").mkdir()
    for number, (shard, table) in enumerate(shards):
        path = draft / "data" / f"train-{number:05d}-of-{len(shards):05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(table), GROUP):
                rows = list(_rows(store, shard, table.slice(start, GROUP), layout))
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _hugging_face(store: Store, draft: Path, layout: str) -> None:
    """Write what `datasets.load_from_disk` opens."""
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        for shard, table in _shards(store):
            yield from _rows(store, shard, table, layout)

    made = datasets.Dataset.from_generator(
        rows, features=_features(layout), cache_dir=str(draft / ".cache"), writer_batch_size=GROUP
    )
    made.save_to_disk(str(draft / "saved"))
    del made
    for path in (draft / "saved").iterdir():
        path.rename(draft / path.name)
    (draft / "saved").rmdir()
    _remove(draft / ".cache")


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def _features(layout: str) -> Any:
    import datasets

    text = datasets.Value("string")
    if layout == "captions":
        return datasets.Features({"key": text, "image": datasets.Image(), "caption": text, "json": text})
    columns = {"images": datasets.List(datasets.Image()), "texts": datasets.List(text)}
    return datasets.Features({"key": text, "url": text, **columns, "json": text})


def _schema(layout: str) -> pa.Schema:
    return _features(layout).arrow_schema


def _rows(store: Store, shard: str, table: pa.Table, layout: str) -> Iterator[dict[str, Any]]:
    for key, found in members(store, shard, table):
        with sample_of(store, shard, key):
            row = _row(key, found, layout)
        yield row


def _row(key: str, found: dict[str, bytes], layout: str) -> dict[str, Any]:
    """Return a sample as a row: a pair with its image, a document with aligned lists of which one is null at each place."""
    facts = json.loads(found["json"])
    said = found["json"].decode()
    pictures = {name: data for name, data in found.items() if name.rpartition(".")[2] in IMAGE_EXTENSIONS}
    if layout == "captions":
        name, data = next(iter(pictures.items()))
        return {"key": key, "image": {"bytes": data, "path": f"{key}.{name}"}, "caption": found["txt"].decode(), "json": said}
    images = [
        None if place is None else {"bytes": pictures[place["file"]], "path": f"{key}.{place['file']}"}
        for place in facts["metadata"]
    ]
    return {"key": key, "url": facts["url"], "images": images, "texts": facts["texts"], "json": said}
