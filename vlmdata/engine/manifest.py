"""The manifest: what a finished dataset holds. Without it OUT is being built or changed, and nobody should read it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.engine.base import Store
from vlmdata.engine.open import open_store
from vlmdata.engine.records import Manifest, read_record
from vlmdata.engine.tombstones import is_pending
from vlmdata.loader.find import first_outside
from vlmdata.redact import redacted
from vlmdata.step import RecipeError

MANIFEST = "manifest.json"
FIX = "Restore it, or remove it and build the dataset again"
# Manifests of earlier commits lack some of these.
EMPTY: dict[str, Any] = {"limit": None, "other_records": {}, "versions": {}, "models": {}, "provenance": {}}
LOCK = "work/.lock"  # held by whoever builds, takes down or cleans; on an object store a folder of lease records


def read_manifest(out: str | Path) -> dict[str, Any]:
    """Return the manifest of a finished dataset, and change nothing.

    Raises RecipeError where there is none, for a damaged one, and where a takedown is not finished: files still hold what it
    removed, or lie in the places of others.
    """
    try:
        store = open_store(out, probe=False)
        if is_pending(store):
            raise RecipeError(f"{out}: a takedown was decided and is not finished. To finish it: vlmdata forget {out}")
        return load_manifest(store)
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(f"{out} is no finished dataset: it has no {MANIFEST}. Run the command that builds it again") from None


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


def settle(store: Store) -> None:
    """Finish a takedown that was decided and then interrupted: for commands that change the dataset."""
    if is_pending(store):
        from vlmdata.takedown import finish_pending

        with alone(store):
            finish_pending(store)


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
