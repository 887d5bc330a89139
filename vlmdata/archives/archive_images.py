"""Looks up images in a collection of archives by address. It follows redirects and revisit records.

Bodies stay in the archives and are read by offset on request. A forward-only stream is first unpacked into a temporary file,
which is deleted when it is closed.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urljoin

import numpy as np

from vlmdata.archives.http_message import Response
from vlmdata.archives.image_index import REDIRECTS, address_key, collection_index
from vlmdata.archives.read_archive import record_at
from vlmdata.archives.record import BODIES, Record, response_of
from vlmdata.archives.sequential import Sequential
from vlmdata.archives.volume import Volume
from vlmdata.web.url import location_text

_MAX_HOPS = 5
_OPEN = 100  # maximum number of archives that are open at once


class FoundImage(NamedTuple):
    """An image that was found in an archive: the body and headers of its response."""

    data: bytes
    url: str  # after redirects
    headers: dict[str, str]


class ArchiveImages:
    """Looks up images by address. Thread-safe. Use it in a `with` block, or call `close`, to close its files.

    The index is stored in `folder`, where other workers reuse it. Without a folder, the index exists only as long as the
    object.
    """

    def __init__(self, volumes: Iterable[Volume], *, max_bytes: int = 20_000_000, folder: Path | None = None):
        self.volumes = list(volumes)
        self.max_bytes = max_bytes
        self.files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()
        if folder is not None:
            self.keys, self.places = collection_index(self.volumes, folder, max_bytes)
            return
        with tempfile.TemporaryDirectory(prefix="vlmdata-archives-") as temporary:  # a mapped file is readable after deletion
            self.keys, self.places = collection_index(self.volumes, Path(temporary), max_bytes)

    def __enter__(self) -> ArchiveImages:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.keys)

    def close(self) -> None:
        """Close the open archives."""
        for file in self.files.values():
            file.close()
        self.files.clear()

    def find(self, url: str) -> FoundImage | None:
        """Return the image at an address, or None if the archives do not hold the complete image. Follows redirects."""
        for _ in range(_MAX_HOPS):
            response = self._at(address_key(url))
            if response is None:
                return None
            location = response.headers.get("location")
            if response.status in REDIRECTS and location:
                url = urljoin(url, location_text(location))
                continue
            return FoundImage(response.body, url, response.headers) if response.status == 200 and response.body else None
        return None

    def _at(self, key: int) -> Response | None:
        number = int(np.searchsorted(self.keys, np.uint64(key)))
        if number >= len(self.keys) or self.keys[number] != key:
            return None
        place = self.places[number]
        record = self._record(int(place["volume"]), int(place["offset"]))
        if record is None or record.kind not in BODIES:
            return None
        response = response_of(record, self.max_bytes)
        return None if response.problem else response

    def _record(self, volume: int, offset: int) -> Record | None:
        with self._lock:
            file = self.files.pop(volume, None) or _open_seekable(self.volumes[volume])
            self.files[volume] = file
            if len(self.files) > _OPEN:
                self.files.popitem(last=False)[1].close()
            return record_at(file, offset, self.max_bytes * 2)


def _open_seekable(volume: Volume) -> BinaryIO:
    """Open a volume for reading at any offset. A forward-only stream is unpacked into a temporary file."""
    file: BinaryIO | Sequential = volume.open()
    if not isinstance(file, Sequential):
        return file
    copy = tempfile.TemporaryFile(prefix="vlmdata-archive-")  # noqa: SIM115
    with file:
        try:
            while chunk := file.read(1 << 20):
                copy.write(chunk)
        except ConnectionError:
            raise
        except OSError:
            pass  # keep the bytes before the damage; the last record may then be bad
    return copy
