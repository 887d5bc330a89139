"""An open partition for tests of steps that measure."""

import threading
from pathlib import Path

from vlmdata.engine.partitions import tombstones
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.work.open_partition import Keep, OpenPartition


def open_part(folder: Path) -> OpenPartition:
    """Return partition 0 of a dataset in a folder, as a worker without a web client has it."""
    store = LocalStore(folder)
    return OpenPartition(store, 0, Keep(), threading.Lock(), None, tombstones.load(store))
