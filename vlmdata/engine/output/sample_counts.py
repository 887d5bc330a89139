"""sizes.json: the number of samples of each tar, as open_clip's trainer and other readers of tars look for it beside them.

open_clip reads it in `get_dataset_size` of open_clip_train/data.py, https://github.com/mlfoundations/open_clip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vlmdata.engine.store.store_protocol import Store

COUNTS = "sizes.json"  # the name that open_clip expects in the folder of the tars


def encode_counts(samples: Mapping[str, int]) -> bytes:
    """Return the content of sizes.json. `samples` maps the file name of each tar to its number of samples."""
    return json.dumps(samples, indent=2).encode() + b"\n"


def write_counts(store: Store, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write sizes.json for the tars that the manifest lists. Return its size and SHA-256 for the manifest."""
    tars = sorted((name for name in manifest["files"] if name.endswith(".tar")), key=lambda name: (len(name), name))
    data = encode_counts({name: manifest["files"][name]["samples"] for name in tars})
    store.put(COUNTS, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
