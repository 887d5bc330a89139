"""The manifest of a finished dataset. While a dataset is built or changed, it has no manifest and must not be read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.engine.store.json_shapes import Manifest, read_record
from vlmdata.engine.store.store_protocol import Store
from vlmdata.loader.index.find_tars import first_outside
from vlmdata.notes import note
from vlmdata.step import RecipeError

MANIFEST = "manifest.json"
FIX = "Restore it, or remove it and build the dataset again"
# Defaults for the fields that manifests of earlier versions of vlmdata lack.
EMPTY: dict[str, Any] = {
    "limit": None,
    "other_records": {},
    "versions": {},
    "models": {},
    "generations": {},
    "provenance": {},
}
# A build, a takedown or a clean holds this lock. The lock is a file, or on an object store a folder of lease records.
LOCK = "work/.lock"


def load_manifest(store: Store) -> dict[str, Any]:
    """Return the manifest, with defaults for fields that earlier versions of vlmdata did not write.

    Raises FileNotFoundError if there is none, and RecipeError if it is damaged or names a file outside of the dataset.
    """
    manifest = EMPTY | read_record(store, MANIFEST, Manifest, FIX)
    place = f"{store.url}/{MANIFEST}"
    name = first_outside(store.url, manifest["files"], Path(place))
    if name is not None:
        raise RecipeError(f"{place} names a file outside of the dataset: {name!r}")
    return manifest


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """Hold the lock of a dataset in the `with` block, so that no other process changes it.

    If another process holds the lock, print a note and wait.
    """

    def waits(holder: str) -> None:
        note(f"{store.url} is locked by {holder}; waiting")

    with store.alone(LOCK, waits):
        yield


def confirm_alone(store: Store) -> None:
    """Raise OSError if another process took the lock, which can happen if this process was suspended for a minute."""
    if not store.is_alone():
        raise OSError(f"{store.url}: another process took the lock while this process was suspended")


def write_manifest(store: Store, manifest: dict[str, Any]) -> None:
    """Write the manifest, which makes the dataset readable. Call it after every file in the manifest is published."""
    store.put(MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")


def step_entries(recipe: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """Return (name, parameters, label) of each step of a manifest's recipe. The label is the step's name in the ledger.

    Entries that are not steps are left out, because a manifest may come from strangers.
    """
    steps = recipe.get("steps")
    found = [next(iter(one.items())) for one in (steps if isinstance(steps, list) else []) if isinstance(one, dict) and one]
    return [
        (name, parameters, str(parameters.get("label") or (name.split(".")[-2] if "." in name else name)))
        for name, parameters in found
        if isinstance(parameters, dict)
    ]
