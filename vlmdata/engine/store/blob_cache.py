"""A cache of blobs on an object store. The first few reads of a blob fetch a range each. The next read fetches the whole blob.

Packing and scoring read nearly every image of a blob, but not in the order of the blob. A report reads only one of many images.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

FEW = 3  # number of reads of one blob before the whole blob is fetched
KEEP_BYTES = 256_000_000  # maximum bytes of cached blobs; the newest blob stays even if it is larger
REMEMBERED = 1000  # maximum number of blobs whose reads are counted


class BlobCache:
    """A cache of whole blobs. Thread-safe.

    The function `whole` fetches a blob from a store, and `part` fetches a range of a blob.
    """

    def __init__(self, whole: Callable[[str], bytes], part: Callable[[str, int, int], bytes]):
        self._whole, self._part = whole, part
        self._lock = threading.Lock()
        self._reads: OrderedDict[str, int] = OrderedDict()
        self._cached: OrderedDict[str, bytes] = OrderedDict()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of a blob from `offset`."""
        with self._lock:
            if name in self._cached:
                self._cached.move_to_end(name)
                return self._cached[name][offset : offset + size]
            self._reads[name] = reads = self._reads.pop(name, 0) + 1
            if len(self._reads) > REMEMBERED:
                self._reads.popitem(last=False)
            if reads > FEW:
                self._cached[name] = self._whole(name)
                while sum(map(len, self._cached.values())) > KEEP_BYTES and len(self._cached) > 1:
                    self._cached.popitem(last=False)
                return self._cached[name][offset : offset + size]
        return self._part(name, offset, size)

    def forget(self, name: str) -> None:
        """Remove a blob from the cache. Call this before the blob changes."""
        with self._lock:
            self._cached.pop(name, None)
