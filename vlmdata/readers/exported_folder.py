"""Find and read documents that `vlmdata export --to folder` wrote: `KEY.json`, and the images `KEY.0.jpg`, `KEY.1.jpg` …"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Read
from vlmdata.readers.exported_rows import in_memory
from vlmdata.readers.image_files import IMAGES, Folder, Zip
from vlmdata.readers.sample_facts import OUR_KEY, is_own_sample
from vlmdata.readers.source_images import LARGEST
from vlmdata.readers.tar_samples import MAX_JSON, BadSample
from vlmdata.readers.zip_members import UnusableFile

_PART = re.compile(rf"({OUR_KEY.pattern})\.\d+\.[A-Za-z]+")  # the image of a document


class Entry(NamedTuple):
    """A file that gives a row: an image, or a JSON that may be a document's."""

    path: str
    parts: tuple[str, ...] | None = None  # paths of the document's images; None: the file is an image


def entries(store: Folder | Zip, images: Sequence[str]) -> list[Entry]:
    """Return the files of a store that give rows, sorted by path. The images of a document are only in its entry.

    The names decide, and no file is opened. Documents without an image are found too, if another document has one.
    """
    parts: dict[str, list[str]] = {}
    for path in images:
        if about := _json_of(store, path):
            parts.setdefault(about, []).append(path)
    if not parts:
        return [Entry(path) for path in images]
    inside = {path for some in parts.values() for path in some}
    bare = [path for path in store.members((".json",)) if path not in parts and _is_alone(store, path)]
    found = [Entry(path, tuple(parts.get(path, ()))) for path in {*parts, *bare}]
    return sorted([*found, *(Entry(path) for path in images if path not in inside)])


def document_in(store: Folder | Zip, path: str) -> tuple[SampleMembers, Read, list[str | None]] | None:
    """Return the document whose JSON is at `path`: its members, a function that reads them, and the paths of its images.

    A path is None at the position of a text, and where there is no such file. Returns None if the JSON is not that of a
    document from vlmdata. Raises BadSample or UnusableFile if the JSON cannot be read.
    """
    folder, slash, file = path.rpartition("/")
    key = os.path.splitext(file)[0]
    data = store.read(path, MAX_JSON)
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"the file is not valid JSON: {error}") from None
    if not is_own_sample(facts, key) or not all(isinstance(facts.get(name), list) for name in ("texts", "metadata")):
        return None
    names, found, paths = store.names(folder), {"json": data}, list[str | None]()
    for place in facts["metadata"]:
        member = str(place.get("file")).lower() if isinstance(place, dict) else ""
        image = next((folder + slash + name for name in names.get(f"{key}.{member}", ())), None) if member else None
        try:
            found |= {member: store.read(image, LARGEST)} if image else {}
        except UnusableFile:  # such as a link to a file outside the folder: the row has no image there
            image = None
        paths.append(image)
    return *in_memory(key, found), paths


def placed(row: dict[str, Any], paths: Sequence[str | None]) -> dict[str, Any]:
    """Return a document's row with images that refer to their files at `paths`, in place of their bytes."""
    for image, path in zip(row.get("images") or (), paths, strict=False):
        if image and image.get("data") and path and path.encode("utf-8", "replace") == os.fsencode(path):
            image |= {"data": None, "blob": path, "offset": 0, "size": len(image["data"])}
    return row


def _json_of(store: Folder | Zip, path: str) -> str | None:
    """Return the path of the JSON of the document to which an image belongs by its name, or None."""
    folder, slash, name = path.rpartition("/")
    part = _PART.fullmatch(name)
    about = part and f"{part[1]}.json"
    return folder + slash + about if about and about in store.names(folder).get(about, ()) else None


def _is_alone(store: Folder | Zip, path: str) -> bool:
    """Return whether a JSON has the name of a sample from vlmdata, and no image beside it has the same name."""
    folder, _, name = path.rpartition("/")
    stem = os.path.splitext(name)[0]
    return OUR_KEY.fullmatch(stem) is not None and not any(stem + ending in store.names(folder) for ending in IMAGES)
