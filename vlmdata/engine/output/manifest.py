"""The manifest: what a finished dataset holds. Without it OUT is being built or changed, and nobody should read it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.engine.store.json_shapes import Manifest, read_record
from vlmdata.engine.store.store_protocol import Store
from vlmdata.loader.index.find_tars import first_outside
from vlmdata.redact import redacted
from vlmdata.step import RecipeError

MANIFEST = "manifest.json"
FIX = "Restore it, or remove it and build the dataset again"
# Manifests of earlier commits lack some of these.
EMPTY: dict[str, Any] = {"limit": None, "other_records": {}, "versions": {}, "models": {}, "provenance": {}}
LOCK = "work/.lock"  # held by whoever builds, takes down or cleans; on an object store a folder of lease records


def load_manifest(store: Store) -> dict[str, Any]:
    """Return the manifest, with defaults for fields that earlier commits did not write.

    Raises FileNotFoundError where there is none, and RecipeError where it is damaged or names a file outside of the dataset.
    """
    manifest = EMPTY | read_record(store, MANIFEST, Manifest, FIX)
    place = f"{store.url}/{MANIFEST}"
    name = first_outside(store.url, manifest["files"], Path(place))
    if name is not None:
        raise RecipeError(f"{place} names a file outside of the dataset: {name!r}")
    return manifest


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """Be the only one who changes a dataset, as long as the block lasts; says so on stderr where somebody else is at it."""

    def waits(holder: str) -> None:
        print(
            f"{redacted(store.url)}: in use by {holder}; this goes on when that ends, or is stopped",
            file=sys.stderr,
            flush=True,
        )

    with store.alone(LOCK, waits):
        yield


def confirm_alone(store: Store) -> None:
    """Raise OSError where another process took over, as it may after this one was suspended for a minute."""
    if not store.is_alone():
        raise OSError(f"{store.url}: another process took over while this one was held up")


def write_manifest(store: Store, manifest: dict[str, Any]) -> None:
    """Write the manifest: from then on the dataset is finished. Every file that it lists is in its place by then."""
    store.put(MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
