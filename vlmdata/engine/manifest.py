"""The manifest: what a finished dataset holds. Without it OUT is being built or changed, and nobody should read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmdata.engine.store import Store, open_store
from vlmdata.engine.tombstones import FOLDER
from vlmdata.step import RecipeError

MANIFEST = "manifest.json"
LOCK = f"{FOLDER}/.lock"  # held by whoever takes samples down


def read_manifest(out: str | Path) -> dict[str, Any]:
    """Return the manifest of a finished dataset. Raises RecipeError where there is none."""
    try:
        store = open_store(out)
        settle(store)
        return json.loads(store.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(f"{out} is no finished dataset: it has no {MANIFEST}. Run the command that builds it again") from None


def settle(store: Store) -> None:
    """Finish a takedown that was decided and then interrupted."""
    if is_pending(store):
        from vlmdata.takedown import finish_pending

        with store.alone(LOCK):
            finish_pending(store)


def is_pending(store: Store) -> bool:
    """Say whether the last takedown was decided but is not done."""
    names = [name for name in store.list(FOLDER) if name.endswith(".json")]
    return bool(names) and "swap" in json.loads(store.read(names[-1]))
