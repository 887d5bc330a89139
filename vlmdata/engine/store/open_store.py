"""Opens the store at a path or URL."""

from __future__ import annotations

from pathlib import Path

from vlmdata.arguments import check_protocol
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.store.object_store import ObjectStore
from vlmdata.engine.store.store_protocol import Store


def open_store(url: str | Path, *, probe: bool = True) -> Store:
    """Return the store at a path or fsspec URL.

    With `probe`, test with three requests whether an object store supports exclusive creation, and raise RecipeError if it
    does not. Readers do not need the test. Workers do not need the test either, because their driver has made it.
    """
    text = str(url)
    if "://" not in text or text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    check_protocol(text)
    store = ObjectStore(text)
    if probe:
        store.probe()
    return store
