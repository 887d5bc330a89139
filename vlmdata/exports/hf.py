"""Export as a Hugging Face dataset on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.engine.output.stored_samples import shards
from vlmdata.engine.store.store_protocol import Store
from vlmdata.exports.parquet import GROUP, rows_of, schema

PACKAGES = ("datasets",)


def write(store: Store, draft: Path, layout: str) -> None:
    """Write a folder that `datasets.load_from_disk` opens."""
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        for shard, table in shards(store):
            yield from rows_of(store, shard, table, layout)

    dataset = datasets.Dataset.from_generator(
        rows,
        features=datasets.Features.from_arrow_schema(schema(layout)),
        cache_dir=str(draft / ".cache"),
        writer_batch_size=GROUP,
    )
    dataset.save_to_disk(str(draft / "saved"))
    del dataset
    for path in (draft / "saved").iterdir():
        path.rename(draft / path.name)
    (draft / "saved").rmdir()
    shutil.rmtree(draft / ".cache")
