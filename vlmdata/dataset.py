"""A finished dataset: its manifest, once every takedown that was decided is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmdata.dataset_pages import rewrite_pages
from vlmdata.engine.forget import pending
from vlmdata.engine.output.manifest import MANIFEST, alone, load_manifest
from vlmdata.engine.partitions.tombstones import is_pending
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.step import RecipeError


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


def settle(store: Store) -> None:
    """Finish a takedown that was decided and then interrupted: for commands that change the dataset."""
    if is_pending(store):
        with alone(store):
            finish_pending(store)


def finish_pending(store: Store) -> None:
    """Finish the last takedown if it was decided, and clear what an undecided one left: for who holds the dataset's lock."""
    pending.finish_pending(store, rewrite_pages)
