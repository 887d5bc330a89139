"""Finishes a takedown whose record was written: publishes the new files and erases forgotten rows.

At the end, the record keeps only the tombstones, which are hashes of what was forgotten. Each step can be repeated. So if the
process is killed at any moment, the next call finishes the takedown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vlmdata.engine.forget import erase
from vlmdata.engine.output.manifest import EMPTY, MANIFEST, write_manifest
from vlmdata.engine.output.sample_counts import COUNTS
from vlmdata.engine.partitions import tombstones
from vlmdata.engine.partitions.tombstones import FOLDER, KEY_DIGITS, is_pending
from vlmdata.engine.store.store_protocol import Store
from vlmdata.step import RecipeError

Pages = Callable[[Store, dict[str, Any]], dict[str, Any]]
"""A function that writes the pages of a dataset (report, card) from its manifest and returns their facts by name."""


def finish_pending(store: Store, pages: Pages) -> None:
    """Finish the last takedown if it was interrupted after its record was written.

    If a takedown was interrupted before its record was written, delete its files. `pages` writes the report and the card.
    """
    if is_pending(store):
        roll_forward(store, *tombstones.records(store)[-1], pages)
    for folder in store.folders(FOLDER):
        store.delete_folder(folder)


def roll_forward(store: Store, name: str, record: dict[str, Any], pages: Pages) -> None:
    """Do everything that the record of a takedown lists. Raises RecipeError if a new file is missing.

    If the process is killed during this call, the call can be repeated. `pages` writes the report and the card.
    """
    for file in record["swap"].values():
        _check_exists(store, name, file)
    for gone in (MANIFEST, "index.parquet", COUNTS):
        if gone == MANIFEST or gone in record["swap"] or (gone == COUNTS and gone in record["manifest"]["files"]):
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


def _check_exists(store: Store, name: str, file: str | None) -> None:
    """Raise RecipeError if a new file that a record names is missing. Call it before anything is changed."""
    try:
        if file is not None:
            store.size(file)
    except FileNotFoundError:
        why = f"names {file}, which is missing. Restore the folder {FOLDER}, or build the dataset again"
        raise RecipeError(f"{store.url}/{name} {why}") from None
