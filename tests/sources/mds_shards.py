"""Write an MDS folder of one shard for tests: columns of any encoding, with values that are already encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.exporting.made import content
from vlmdata.exporting.mds_shards import Form, MdsFiles


def write_mds(
    folder: Path, rows: Sequence[Mapping[str, bytes]], columns: Mapping[str, str], name: str = "shard.mds", **more: Any
) -> dict[str, Any]:
    """Write a shard and its index.json, and return its entry of the index. `more` replaces fields of the entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with MdsFiles(folder, folder / "body", "x", Form(columns, 1 << 26)) as files:
        for row in rows:
            files.add(row)
        files.flush()
    (folder / "body").unlink()
    (folder / "x.00000.mds").rename(folder / name)
    entry = files.entries[0]
    entry = {**entry, "raw_data": {**entry["raw_data"], "basename": name}, **more}
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [entry]}))
    return entry


def shard_of(folder: Path) -> bytes:
    """Return the bytes of the only shard in a folder."""
    (found,) = [data for name, data in content(folder).items() if name.endswith(".mds")]
    return found
