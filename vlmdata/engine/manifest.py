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
from vlmdata.loader.find import first_outside
from vlmdata.redact import redacted
from vlmdata.step import RecipeError

MANIFEST = "manifest.json"
FIELDS = {"dropped": list, "files": dict, "kept": int, "recipe": dict, "rows": int, "source": str}
LOCK = "work/.lock"  # held by whoever builds, takes down or cleans; on an object store a folder of lease records


def read_manifest(out: str | Path) -> dict[str, Any]:
    """Return the manifest of a finished dataset. Raises RecipeError where there is none, or a damaged one."""
    try:
        store = open_store(out, probe=False)
        settle(store)
        return load_manifest(store)
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(f"{out} is no finished dataset: it has no {MANIFEST}. Run the command that builds it again") from None


def load_manifest(store: Store) -> dict[str, Any]:
    """Return the manifest as it lies there. FileNotFoundError: there is none; RecipeError: damaged, or with names outside."""
    place = f"{store.url}/{MANIFEST}"
    try:
        manifest = json.loads(store.read(MANIFEST))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{place} is damaged: {error}. Restore it, or remove it and build the dataset again") from None
    if not _is_whole(manifest):
        raise RecipeError(f"{place} is damaged: fields are missing. Restore it, or remove it and build the dataset again")
    name = first_outside(store.url, manifest["files"], Path(place))
    if name is not None:
        raise RecipeError(f"{place} names a file outside of the dataset: {name!r}")
    return manifest


def _is_whole(manifest: Any) -> bool:
    """Say whether what every dataset has is there, of the right type."""
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), kind) for name, kind in FIELDS.items()):
        return False
    files, drops = manifest["files"].values(), manifest["dropped"]
    if not all(isinstance(line, dict) and isinstance(line.get("rows"), int) for line in drops):
        return False
    if not all(isinstance(facts, dict) for facts in files):
        return False
    return all(isinstance(facts.get("bytes"), int) and isinstance(facts.get("sha256"), str) for facts in files)


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


def is_pending(store: Store) -> bool:
    """Say whether the last takedown was decided but is not done."""
    names = [name for name in store.list(FOLDER) if name.endswith(".json")]
    return bool(names) and "swap" in json.loads(store.read(names[-1]))
