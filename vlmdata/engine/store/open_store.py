"""Opening the store at a path or URL."""

from __future__ import annotations

from pathlib import Path

from vlmdata.arguments import check_protocol
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.store.object_store import ObjectStore
from vlmdata.engine.store.store_protocol import Store


def open_store(url: str | Path, *, probe: bool = True) -> Store:
    """Return the store at a path or fsspec URL.

    `probe`: test exclusive creation with three requests, and raise RecipeError if an object store lacks it. Readers do not
    need this, nor workers, whose driver has done it.
    """
    text = str(url)
    if "://" not in text or text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    check_protocol(text)
    store = ObjectStore(text)
    if probe:
        store.probe()
    return store
