"""Export as plain files."""

from __future__ import annotations

from pathlib import Path

from vlmdata.engine.output.stored_samples import members, shards
from vlmdata.engine.store.store_protocol import Store


def write(store: Store, draft: Path, layout: str) -> None:
    """Write each member to its own file, `ab/abcd….jpg`. The folder's name is the first two characters of the key."""
    for shard, table in shards(store):
        for key, found in members(store, shard, table):
            folder = draft / key[:2]
            folder.mkdir(exist_ok=True)
            for name, data in found.items():
                (folder / f"{key}.{name}").write_bytes(data)
