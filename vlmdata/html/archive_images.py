"""The images that a collection of archives holds, found by address: also behind redirects and revisit records.

One pass over the headers writes 24 bytes for each image, redirect and revisited response; bodies stay where they are and are
read by offset when asked for. A volume whose records cannot be reached by offset (one gzip stream over many records, a
compressed zip member) is unpacked into a temporary file that goes with the index.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import xxhash

from vlmdata.html.archive import Record, record_at, records
from vlmdata.html.http_message import Response, parse_response
from vlmdata.html.sequential import Sequential
from vlmdata.html.volume import Volume

_ENTRY = np.dtype([("key", "u8"), ("volume", "u4"), ("length", "u4"), ("offset", "u8")])
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_HOPS = 5
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff")


class Found(NamedTuple):
    data: bytes
    url: str  # where the image was at last
    headers: dict[str, str]


class ArchiveImages:
    """Looks up images by address. Close it, or use it in a `with`, to let go of files and temporary copies."""

    def __init__(self, volumes: Iterable[Volume], *, max_bytes: int = 20_000_000):
        self.volumes = list(volumes)
        self.max_bytes = max_bytes
        self.files: dict[int, BinaryIO] = {}
        self.entries = np.zeros(0, _ENTRY)
        self._index()

    def __enter__(self) -> ArchiveImages:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.entries)

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.files.clear()

    def find(self, url: str) -> Found | None:
        """Return the image at an address, or None when the archives do not hold it whole."""
        for _ in range(_MAX_HOPS):
            response = self._at(address_key(url))
            if response is None:
                return None
            location = response.headers.get("location")
            if response.status in _REDIRECTS and location:
                url = urljoin(url, location)
                continue
            return Found(response.body, url, response.headers) if response.status == 200 and response.body else None
        return None

    def _at(self, key: int) -> Response | None:
        place = int(np.searchsorted(self.entries["key"], np.uint64(key)))
        if place >= len(self.entries) or self.entries["key"][place] != key:
            return None
        entry = self.entries[place]
        record = self._record(int(entry["volume"]), int(entry["offset"]))
        if record is None or record.kind not in ("response", "resource"):
            return None
        if record.kind == "resource":
            return Response(200, {"content-type": record.headers.get("content-type", "")}, record.block)
        response = parse_response(record.block, max_bytes=self.max_bytes)
        return None if response.problem else response

    def _record(self, volume: int, offset: int) -> Record | None:
        if volume not in self.files:
            self.files[volume] = _reachable(self.volumes[volume])
        return record_at(self.files[volume], offset, self.max_bytes * 2)

    def _index(self) -> None:
        found: list[tuple[int, int, int, int]] = []
        digests: dict[bytes, tuple[int, int]] = {}
        revisits: list[tuple[int, bytes]] = []
        for number in range(len(self.volumes)):
            self._index_volume(number, found, digests, revisits)
        held = {key for key, *_ in found}
        for key, digest in revisits:
            if key not in held and digest in digests:
                found.append((key, *digests[digest], 0))
                held.add(key)
        entries = np.array([(k, v, 0, o) for k, v, o, _ in found], _ENTRY)
        _, first = np.unique(entries["key"], return_index=True)  # the first response to an address stands
        self.entries = entries[first]

    def _index_volume(
        self,
        number: int,
        found: list[tuple[int, int, int, int]],
        digests: dict[bytes, tuple[int, int]],
        revisits: list[tuple[int, bytes]],
    ) -> None:
        for record in records(self.volumes[number], max_bytes=self.max_bytes * 2):
            if record.url is None or record.kind not in ("response", "resource", "revisit"):
                continue
            digest = record.headers.get("warc-payload-digest", "").encode()
            if record.kind == "revisit":
                if digest:
                    revisits.append((address_key(record.url), digest))
                continue
            if digest:
                digests.setdefault(digest, (number, record.offset))
            if _is_wanted(record):
                found.append((address_key(record.url), number, record.offset, 0))


def _reachable(volume: Volume) -> BinaryIO:
    """Open a volume for reading at any place: a stream that can only be read onwards by a temporary copy."""
    file = volume.open()
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
            pass  # what can be unpacked is there; its last record is a bad one
    return copy


def _is_wanted(record: Record) -> bool:
    """Say whether a record is an image or a redirect, by what it declares."""
    if record.kind == "resource":
        return record.headers.get("content-type", "").startswith("image/")
    response = parse_response(record.block[:16_384], max_bytes=0, with_body=False)
    if response.status in _REDIRECTS:
        return True
    if response.status != 200:
        return False
    kind = response.media_type
    path = urlsplit(record.url or "").path.lower()
    return kind.startswith("image/") or (kind in ("", "application/octet-stream", "text/plain") and path.endswith(_EXTENSIONS))


def address_key(url: str) -> int:
    """Return 64 bits for an address: scheme, fragment, default port and the way of escaping do not count."""
    rest = url.partition("#")[0].partition("://")[2] or url
    host, slash, path = rest.partition("/")
    host = host.lower().removesuffix(":80").removesuffix(":443")
    return xxhash.xxh3_64_intdigest(f"{host}/{unquote(path) if slash else ''}".encode("utf-8", "surrogatepass"))
