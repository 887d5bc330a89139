"""Read index.json of MosaicML Streaming, which describes MDS shards: their files, columns, sizes and hashes.

Everything in an index comes from strangers. A shard that cannot be read gets a problem, and its samples are one bad record.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vlmdata.readers.find_files import is_remote
from vlmdata.readers.mds_values import ARRAY, size_of
from vlmdata.readers.open_file import raw_file
from vlmdata.safe_path import Refused, safe_path
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as, one_line

INDEX = "index.json"
MAX_INDEX = 1 << 28  # bytes of an index; an entry takes about 700
MAX_COLUMNS = 1000
LARGEST = 2**32 - 1  # largest size of a file: its offsets are uint32
COMPRESSIONS = ("br", "bz2", "gz", "zstd")  # Streaming also writes snappy, whose blocks state no limit
_HEX = re.compile("[0-9a-fA-F]{1,256}")


class _Wrong(ValueError):
    """Raised for an entry that cannot be used, with the reason for the ledger."""

    def __init__(self, why: str, reason: str = "bad_record") -> None:
        super().__init__(why)
        self.reason = reason


def shards_in(index: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield the description of each shard in the index at this path, as JSON values. `name` is the index's name in the source.

    `path` and `name` are those of the file to read. `columns` is a list of (name, encoding, size or None). `samples`, `bytes`
    and `hashes` are as stated, `compression` is None for a plain file, and `packed_hashes` are those of the compressed file.
    An entry that cannot be used has only `path`, `name`, `problem` and `reason`. Raises RecipeError for a file that is not an
    index.
    """
    folder = _folder(index)
    where = name.removesuffix(INDEX)
    for number, entry in enumerate(_entries(index)):
        try:
            yield _shard(entry, folder, where)
        except _Wrong as error:
            problem = f"shard {number} in {INDEX}: {error}"
            yield {"path": index, "name": f"{name}, shard {number}", "problem": problem, "reason": error.reason}


def _entries(index: str) -> list[Any]:
    with errors_as(lambda error: RecipeError(f"{index} cannot be read: {one_line(error)}")), raw_file(index) as file:
        data = file.read(MAX_INDEX + 1)
    if len(data) > MAX_INDEX:
        raise RecipeError(f"{index} has more than {MAX_INDEX >> 20} MB, so it is not an index of MDS shards")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{index} is not JSON: {one_line(error)}. Copy the dataset again") from None
    if not isinstance(found, dict) or not isinstance(found.get("shards"), list):
        raise RecipeError(f"{index} is not an index of MDS shards: it has no list `shards`")
    if found.get("version") != 2:
        raise RecipeError(f"{index} has the version {found.get('version')!r}. Only version 2 of the format is known")
    return found["shards"]


def _folder(index: str) -> str:
    first, chained, rest = index.partition("::")
    return os.path.dirname(first) + chained + rest


def _shard(entry: Any, folder: str, where: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise _Wrong("it is not an object")
    if entry.get("format") != "mds":
        raise _Wrong(f"its format is {entry.get('format')!r:.40}, and only mds is read")
    if entry.get("version") != 2:
        raise _Wrong(f"its version is {entry.get('version')!r:.40}, and only version 2 is known")
    columns, compression = _columns(entry), entry.get("compression")
    raw = _stated(entry, "raw_data")
    found = {"columns": columns, "samples": _whole(entry.get("samples"), "samples"), **_facts(raw, "raw_data")}
    packed = entry.get("zip_data")
    if packed:
        packed = _stated(entry, "zip_data")
        kind = compression.partition(":")[0] if isinstance(compression, str) else compression
        if kind not in COMPRESSIONS:
            raise _Wrong(f"its compression is {compression!r:.40}. Only {', '.join(COMPRESSIONS)} are read")
        if is_remote(folder) or not _exists(raw["basename"], folder):
            path = _path(packed["basename"], folder)
            more = {"compression": kind, "packed_hashes": _facts(packed, "zip_data")["hashes"]}
            return {"path": path, "name": where + packed["basename"], **found, **more}
    return {"path": _path(raw["basename"], folder), "name": where + raw["basename"], **found, "compression": None}


def _path(name: str, folder: str) -> str:
    try:
        return safe_path(name, folder)
    except Refused as error:
        raise _Wrong(f"its file {name[:200]!r} is not opened ({error})", str(error)) from None


def _exists(name: str, folder: str) -> bool:
    try:
        return bool(safe_path(name, folder))
    except Refused:
        return False


def _stated(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    stated = entry.get(name)
    if not isinstance(stated, Mapping) or not isinstance(stated.get("basename"), str):
        raise _Wrong(f"`{name}` has no `basename`")
    return stated


def _facts(stated: Mapping[str, Any], name: str) -> dict[str, Any]:
    hashes = stated.get("hashes") or {}
    if not isinstance(hashes, Mapping) or not all(isinstance(one, str) and _HEX.fullmatch(one) for one in hashes.values()):
        raise _Wrong(f"`hashes` of `{name}` are not hashes in hex")
    return {"bytes": _whole(stated.get("bytes"), "bytes"), "hashes": {key: one.lower() for key, one in hashes.items()}}


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise _Wrong(f"`{name}` is {value!r:.40}, not a number from 0 to {LARGEST}")
    return value


def _columns(entry: Mapping[str, Any]) -> list[tuple[str, str, int | None]]:
    lists = [entry.get(f"column_{name}") for name in ("names", "encodings", "sizes")]
    if not all(isinstance(one, list) and 0 < len(one) <= MAX_COLUMNS and len(one) == len(lists[0] or ()) for one in lists):
        raise _Wrong("`column_names`, `column_encodings` and `column_sizes` are not lists of the same length")
    names, encodings, sizes = (one or [] for one in lists)
    if not all(isinstance(one, str) for one in (*names, *encodings)) or len(set(names)) < len(names):
        raise _Wrong("the names and encodings of columns are not texts, or a name occurs twice")
    for name, encoding, size in zip(names, encodings, sizes, strict=True):
        if size is not None:
            _whole(size, "column_sizes")
        known = size_of(encoding)
        if known != -1 and known != (size or None):
            raise _Wrong(f"the column {name!r:.60} of the encoding {encoding!r:.60} cannot have the size {size}")
        if encoding.startswith(f"{ARRAY}:") and known == -1:
            raise _Wrong(f"the column {name!r:.60} has the unknown encoding {encoding!r:.60}")
    return [(name, encoding, size or None) for name, encoding, size in zip(names, encodings, sizes, strict=True)]
