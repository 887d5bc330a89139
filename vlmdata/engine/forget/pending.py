"""Finishing a takedown that was decided: files put in their places, forgotten rows erased, the tombstone left.

Each step can be repeated, so that a kill at any moment leaves something that the next call finishes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vlmdata.engine.forget import erase
from vlmdata.engine.output.manifest import EMPTY, MANIFEST, write_manifest
from vlmdata.engine.partitions import tombstones
from vlmdata.engine.partitions.tombstones import FOLDER, KEY_DIGITS, is_pending
from vlmdata.engine.store.store_protocol import Store
from vlmdata.step import RecipeError

Pages = Callable[[Store, dict[str, Any]], dict[str, Any]]
"""Writes the pages of a dataset that its manifest lists, and returns their facts by name."""


def finish_pending(store: Store, pages: Pages) -> None:
    """Finish the last takedown if it was decided, and clear what one left that was killed before that."""
    if is_pending(store):
        roll_forward(store, *tombstones.records(store)[-1], pages)
    for folder in store.folders(FOLDER):
        store.delete_folder(folder)


def roll_forward(store: Store, name: str, record: dict[str, Any], pages: Pages) -> None:
    """Do what a record decided, from the beginning, however much of it was done before a kill."""
    for file in record["swap"].values():
        _must_be_there(store, name, file)
    for gone in (MANIFEST, "index.parquet"):
        if gone == MANIFEST or gone in record["swap"]:
            store.delete(gone)
    for target, file in record["swap"].items():
        if file is None:
            store.delete(target)
        else:
            store.publish(file, target)
    cells = {int(partition): rows for partition, rows in record["cells"].items()}
    erase.erase(store, cells, {key[:KEY_DIGITS] for key in record["keys"]})
    manifest = EMPTY | record["manifest"]
    manifest["files"] |= pages(store, manifest)
    write_manifest(store, manifest)
    tombstone = {key: record[key] for key in ("at", "rows", "keys", "hashes", "likenesses")}
    store.put(name, json.dumps(tombstone, sort_keys=True).encode())


def _must_be_there(store: Store, name: str, file: str | None) -> None:
    """Raise RecipeError before anything is changed where a file that a record puts in its place is missing."""
    try:
        if file is not None:
            store.size(file)
    except FileNotFoundError:
        why = f"names {file}, which is missing. Restore the folder {FOLDER}, or build the dataset again"
        raise RecipeError(f"{store.url}/{name} {why}") from None
