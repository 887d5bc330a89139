"""Images of a blob on an object store: the first few by a request each, then the whole blob at once.

Packing and scoring take nearly every image of a blob, in another order than they lie there; a report takes one of many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

FEW = 3  # reads of one blob before the whole of it is fetched
KEEP_BYTES = 256_000_000  # of blobs held at once, the one in use apart
REMEMBERED = 1000  # blobs whose reads are counted


class BlobCache:
    """Thread-safe. `whole` and `part` fetch from the store."""

    def __init__(self, whole: Callable[[str], bytes], part: Callable[[str, int, int], bytes]):
        self._whole, self._part = whole, part
        self._lock = threading.Lock()
        self._reads: OrderedDict[str, int] = OrderedDict()
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return part of a blob."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name][offset : offset + size]
            self._reads[name] = reads = self._reads.pop(name, 0) + 1
            if len(self._reads) > REMEMBERED:
                self._reads.popitem(last=False)
            if reads > FEW:
                self._held[name] = self._whole(name)
                while sum(map(len, self._held.values())) > KEEP_BYTES and len(self._held) > 1:
                    self._held.popitem(last=False)
                return self._held[name][offset : offset + size]
        return self._part(name, offset, size)

    def forget(self, name: str) -> None:
        """Drop what is held of a blob: it is about to change."""
        with self._lock:
            self._held.pop(name, None)
