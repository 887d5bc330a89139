"""An index of the images in a collection of archives. It is built once per machine, shared by its workers and memory-mapped.

The first worker that reaches an archive indexes it while the other workers index other archives. An entry has 20
bytes: the hash of an address, the number of a volume (an archive file or a member of a WACZ) and an offset in the volume.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import numpy as np
import xxhash
from numpy.typing import NDArray

from vlmdata.archives.http_message import body_start, parse_response
from vlmdata.archives.read_archive import records
from vlmdata.archives.record import Record
from vlmdata.archives.sniff import START, is_image
from vlmdata.archives.volume import Volume

REDIRECTS = frozenset((301, 302, 303, 307, 308))
_VERSION = 2  # of the file format
_WAIT_S = 0.2
_WANTED, _REVISIT, _OTHER = 0, 1, 2  # kinds: image or redirect, revisit, other response (a revisit may refer to it)
_PLACE = np.dtype([("volume", "u4"), ("offset", "u8")])


def shared_folder() -> Path:
    """Return the user's private temporary folder, in which the workers of a machine share their indexes. Create it if needed.

    Raises OSError if the folder belongs to another user.
    """
    folder = Path(tempfile.gettempdir()) / f"vlmdata-archives-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user. Remove it, or set TMPDIR to a folder that you own")
    return folder


def collection_index(volumes: Sequence[Volume], folder: Path, max_bytes: int) -> tuple[NDArray, NDArray]:
    """Return (keys, places) for the n addresses in the volumes: (n,) uint64, (n,) with the fields `volume` and `offset`.

    `keys` holds the `address_key` of each address, in ascending order. `places` holds the place of the record to read for
    each key. The field `volume` is an index in `volumes`. Later calls reuse the files in `folder`. Concurrent calls share the
    work.
    """
    paths = [folder / f"{_hash(_VERSION, max_bytes, volume.identity()):016x}.volume" for volume in volumes]
    whole = folder / f"{_hash(*(path.name for path in paths)):016x}.collection"
    left = [] if whole.exists() else list(range(len(paths)))
    while left:
        busy = [n for n in left if not _ensure_file(paths[n], partial(_write_volume, volumes[n], max_bytes))]
        if len(busy) == len(left):
            time.sleep(_WAIT_S)
        left = busy
    while not _ensure_file(whole, lambda out: _write_collection(paths, out)):
        time.sleep(_WAIT_S)
    count = whole.stat().st_size // (8 + _PLACE.itemsize)
    if count == 0:
        return np.zeros(0, np.uint64), np.zeros(0, _PLACE)
    return np.memmap(whole, np.uint64, "r", shape=(count,)), np.memmap(whole, _PLACE, "r", offset=8 * count, shape=(count,))


def address_key(url: str) -> int:
    """Return a 64-bit hash of an address. It ignores the scheme, the fragment, a default port and percent-encoding."""
    rest = url.partition("#")[0].partition("://")[2] or url
    host, slash, path = rest.partition("/")
    host = host.lower().removesuffix(":80").removesuffix(":443")
    return xxhash.xxh3_64_intdigest(f"{host}/{unquote(path) if slash else ''}".encode("utf-8", "surrogatepass"))


def _ensure_file(path: Path, write: Callable[[IO[bytes]], None]) -> bool:
    """Write a file if it does not exist. Return False if another process is writing it at the moment.

    The other process holds a lock, which is released when that process ends.
    """
    if path.exists():
        return True
    draft = path.with_suffix(path.suffix + ".draft")
    with draft.open("ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if path.exists():  # another process wrote the file after the first check, so this draft is new and empty
            draft.unlink(missing_ok=True)
            return True
        out.truncate(0)
        write(out)
        out.flush()
        draft.replace(path)
    return True


def _write_volume(volume: Volume, max_bytes: int, out: IO[bytes]) -> None:
    """Write the index of a volume as four arrays: the kind, key, offset and digest hash of each indexed record.

    The kind is `_WANTED` (an image or a redirect), `_REVISIT` or `_OTHER`. The key is the `address_key` of the record's URL.
    The digest hash is 0 if the record has no digest.
    """
    kinds, keys, offsets, digests = array("B"), array("Q"), array("Q"), array("Q")
    for record in records(volume, max_bytes=max_bytes * 2):
        if record.url is None or record.kind not in ("response", "resource", "revisit"):
            continue
        digest = record.headers.get("warc-payload-digest")
        kind = _REVISIT if record.kind == "revisit" else _WANTED if _is_wanted(record) else _OTHER
        if kind == _WANTED or digest:
            kinds.append(kind)
            keys.append(address_key(record.url))
            offsets.append(record.offset)
            digests.append(_hash(digest) if digest else 0)
    for column in (kinds, keys, offsets, digests):
        out.write(column.tobytes())


def _write_collection(paths: list[Path], out: IO[bytes]) -> None:
    """Write the sorted `address_key` of each address, then for each address the volume and the offset of a record.

    The record is the first image or redirect of the address. If the address has only revisits, the record is the response to
    which the first revisit refers.
    """
    columns = [_columns(path, number) for number, path in enumerate(paths)]
    kinds, keys, offsets, digests, volumes = (np.concatenate(column) for column in zip(*columns, strict=True))
    # the first entry with each digest, except revisits
    unique_digests, first = np.unique(np.where(kinds == _REVISIT, 0, digests), return_index=True)
    revisited = np.searchsorted(unique_digests, digests).clip(max=max(0, len(unique_digests) - 1))
    known = (kinds == _REVISIT) & (unique_digests[revisited] == digests) & (digests != 0)
    row = np.concatenate([np.flatnonzero(kinds == _WANTED), np.flatnonzero(known)])
    at = np.where(known, first[revisited], np.arange(len(keys)))[row]
    sorted_keys, chosen = np.unique(keys[row], return_index=True)
    places = np.zeros(len(chosen), _PLACE)
    places["volume"], places["offset"] = volumes[at[chosen]], offsets[at[chosen]]
    out.write(sorted_keys.tobytes())
    out.write(places.tobytes())


def _columns(path: Path, volume: int) -> tuple[NDArray, ...]:
    count = path.stat().st_size // 25
    with path.open("rb") as file:
        kinds = np.fromfile(file, np.uint8, count)
        keys, offsets, digests = (np.fromfile(file, np.uint64, count) for _ in range(3))
    return kinds, keys, offsets, digests, np.full(count, volume, np.uint32)


def _hash(*facts: object) -> int:
    return xxhash.xxh3_64_intdigest(repr(facts).encode())


def _is_wanted(record: Record) -> bool:
    """Return whether a record is a redirect or an image. It is an image if its declared type or its first bytes say so."""
    if record.kind == "resource":
        return record.headers.get("content-type", "").lower().startswith("image/") or is_image(record.block[:START])
    response = parse_response(record.block[:16_384], max_bytes=0, with_body=False)
    if response.status in REDIRECTS:
        return True
    if response.status != 200:
        return False
    return response.media_type.startswith("image/") or is_image(body_start(record.block, START))
