"""The manifest: what a finished dataset holds. Without it OUT is being built or changed, and nobody should read it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.engine.store import Store, open_store
from vlmdata.engine.tombstones import FOLDER
from vlmdata.step import RecipeError

MANIFEST = "manifest.json"
LOCK = "work/.lock"  # held by whoever builds, takes down or cleans; on an object store a folder of lease records


def read_manifest(out: str | Path) -> dict[str, Any]:
    """Return the manifest of a finished dataset. Raises RecipeError where there is none."""
    try:
        store = open_store(out, probe=False)
        settle(store)
        return json.loads(store.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(f"{out} is no finished dataset: it has no {MANIFEST}. Run the command that builds it again") from None


def settle(store: Store) -> None:
    """Finish a takedown that was decided and then interrupted."""
    if is_pending(store):
        from vlmdata.takedown import finish_pending

        with alone(store):
            finish_pending(store)


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """Be the only one who changes a dataset, as long as the block lasts; says so on stderr where somebody else is at it."""

    def waits(holder: str) -> None:
        print(f"{store.url}: in use by {holder}; this goes on when that ends, or is stopped", file=sys.stderr, flush=True)

    with store.alone(LOCK, waits):
        yield


def confirm_alone(store: Store) -> None:
    """Raise OSError where another process took over, as it may after this one was suspended for a minute."""
    if not store.is_alone():
        raise OSError(f"{store.url}: another process took over while this one was held up")


def is_pending(store: Store) -> bool:
    """Say whether the last takedown was decided but is not done."""
    names = [name for name in store.list(FOLDER) if name.endswith(".json")]
    return bool(names) and "swap" in json.loads(store.read(names[-1]))
