"""Export as plain WebDataset tars, which webdataset's own writer makes."""

from __future__ import annotations

from pathlib import Path

import webdataset

from vlmdata.engine.output.samples_index import sample_of
from vlmdata.engine.output.stored_samples import members, shards
from vlmdata.engine.store.store_protocol import Store


def write(store: Store, draft: Path, layout: str) -> None:
    """Write one tar for each shard, with the members of its samples. The bytes depend only on the samples."""
    for shard, table in shards(store):
        with webdataset.TarWriter(str(draft / Path(shard).name), encoder=False, mtime=0) as tar:
            for key, found in members(store, shard, table):
                with sample_of(store, shard, key):
                    tar.write({"__key__": key, **found})
