"""Reads the manifest of a finished dataset, and finishes interrupted takedowns."""

from __future__ import annotations

import difflib
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
    """Return the manifest of a finished dataset, without changing any file.

    Raises RecipeError if the manifest is missing or damaged. It also raises RecipeError if a takedown was interrupted,
    because the files may then still hold removed samples.
    """
    try:
        store = open_store(out, probe=False)
        if is_pending(store):
            raise RecipeError(f"{out}: a takedown was interrupted. Finish it with: vlmdata forget {out}")
        return load_manifest(store)
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(f"{out} is not a finished dataset, because {_why_unfinished(out)}") from None


def _why_unfinished(out: str | Path) -> str:
    """Return the end of a message about a folder without a manifest: the reason, and the fix."""
    path, has_none = Path(out), f"it has no {MANIFEST}"
    if "://" in str(out) or (path / "work").is_dir():
        return f"{has_none}. Run its build command again"
    if path.is_dir():
        return f"{has_none}. Name the folder that `vlmdata run` wrote (--out), or run its build command again"
    if path.exists():
        return "it is a file. Name the folder that `vlmdata run` wrote (--out)"
    beside = [one.name for one in path.absolute().parent.glob("*/") if (one / MANIFEST).is_file()]
    close = difflib.get_close_matches(path.name, beside, n=1)
    return "it does not exist. " + (
        f"Did you mean '{close[0]}'?" if close else "Name the folder that `vlmdata run` wrote (--out)"
    )


def settle(store: Store) -> None:
    """Finish a takedown that was committed but interrupted. Commands that change the dataset call this first."""
    if is_pending(store):
        with alone(store):
            finish_pending(store)


def finish_pending(store: Store) -> None:
    """Finish the last takedown if it was committed, and delete the files of takedowns that were not committed.

    The caller must hold the dataset's lock.
    """
    pending.finish_pending(store, rewrite_pages)
