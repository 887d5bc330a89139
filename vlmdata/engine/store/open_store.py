"""Opens the store at a path or URL."""

from __future__ import annotations

from pathlib import Path

from vlmdata.arguments import check_protocol
from vlmdata.endpoint import check_answers
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.store.object_store import ObjectStore
from vlmdata.engine.store.store_protocol import Store
from vlmdata.home_folder import at_home


def open_store(url: str | Path, *, probe: bool = True, is_worker: bool = False) -> Store:
    """Return the store at a path or fsspec URL.

    With `probe`, test with three requests whether an object store supports exclusive creation, and raise RecipeError if it
    does not. Readers do not need the test. Raises Unreachable within seconds if the store's server does not answer; a worker
    does not test this, because its driver has, and later requests are repeated until the server is back.
    """
    text = at_home(str(url))
    if "://" not in text or text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    check_protocol(text)
    store = ObjectStore(text)
    if probe:
        store.probe()
    elif not is_worker:
        check_answers(store.fs, store.url)
    return store
