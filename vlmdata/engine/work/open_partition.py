"""A partition that a worker has open: what steps may ask of the worker while they measure it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from vlmdata.engine.partitions.partition_log import PartitionBlob
from vlmdata.engine.partitions.tombstones import Tombstones
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.engine.store.store_protocol import Store

if TYPE_CHECKING:
    from vlmdata.steps.download import Download
    from vlmdata.web.client import Client

T = TypeVar("T")

NOTES = "work/notes"


class Keep:
    """What a worker keeps between partitions: its web client, loaded models. The first thread that asks makes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """Return what is kept under this name, made now if there is nothing."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._kept:
                self._kept[name] = make()
            return self._kept[name]

    def close(self) -> None:
        """Close what has a `close`: connections end in good order."""
        for thing in self._kept.values():
            if hasattr(thing, "close"):
                thing.close()
        self._kept.clear()


class OpenPartition:
    """One partition in work, with the blob its images go to."""

    def __init__(
        self, store: Store, number: int, keep: Keep, decoding: threading.Lock, rate_limiter: Any, tombstones: Tombstones
    ):
        self.store = store
        self.number = number
        self.blob = PartitionBlob(store, number)
        self.decoding = decoding
        self.rate_limiter = rate_limiter
        self.tombstones = tombstones  # images that must not be stored again
        self.guilty: frozenset[int] = frozenset()  # images that killed a decoder
        self.journal_file: Any = None  # where the image in hand is noted when a crash is being tracked down
        self.measuring = ""  # the name of the measurement in work
        self._keep = keep

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        """Return the encoded bytes of an image, also of one that this partition has just written."""
        if blob == self.blob.name:
            return self.blob.read(offset, size)
        return read_blob(self.store, blob, offset, size)

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return what the worker keeps under this name from partition to partition, made at first use."""
        return self._keep.get(name, make)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Keep what a measurement says of itself under its name, for the manifest; said once by each worker."""
        text = json.dumps(facts, sort_keys=True)
        name = f"{NOTES}/{self.measuring}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        self._keep.get(name, lambda: self.store.put_new(name, text.encode()))

    def client(self, options: Download) -> Client:
        """Return the worker's web client, one for all its partitions."""
        from vlmdata.web.client import Client

        return self._keep.get("client", lambda: Client(options, self.rate_limiter))

    def journal(self, position: int) -> bool:
        """Note which image is about to be decoded; return True where it is known to kill the decoder."""
        if position in self.guilty:
            return True
        if self.journal_file is not None:
            self.journal_file.seek(0)
            self.journal_file.write(f"{self.number} {position:<20}")
            self.journal_file.flush()
        return False
