"""Reads what lies beside a video under the same name: captions, facts in JSON, and subtitles."""

from __future__ import annotations

import bisect
import itertools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vlmdata.readers.image_files import Folder
from vlmdata.readers.nested import texts_in
from vlmdata.readers.strings import caption_text, is_blank
from vlmdata.readers.tar_samples import MAX_CAPTION, MAX_JSON
from vlmdata.readers.zip_members import UnusableFile
from vlmdata.video import subtitles
from vlmdata.video.settings import VideoError
from vlmdata.video.subtitles import Said

CAPTIONS = ("txt", "text", "caption")
ENDINGS = {*CAPTIONS, "json", *(ending[1:] for ending in subtitles.ENDINGS)}
MAX_SUBTITLES = 16 << 20  # bytes of a file; those of a film have 100 KB
Read = Callable[[int], bytes]  # from the greatest number of bytes to the bytes of a file


class Beside(NamedTuple):
    """The captions, the fields of the JSON, and the subtitles that belong to a video."""

    captions: list[str]
    facts: dict[str, Any]
    said: list[Said]


def read_beside(parts: Mapping[str, Read], *, encoding: str, with_subtitles: bool, language: str) -> Beside:
    """Read the files beside a video. `parts` maps what follows the video's name (`txt`, `en.srt`) to a reader of the file.

    The captions are those of the first caption file, or else the field `caption` of the JSON. Of several subtitle files, the
    one in `language` is read, or else the one with the shortest name. Raises VideoError for a file that cannot be used.
    """
    facts = _facts(parts["json"]) if "json" in parts else {}
    captions: list[str] = []
    if name := next((name for name in CAPTIONS if name in parts), None):
        captions = _texts(_text(parts[name](MAX_CAPTION), encoding, f".{name}"), f".{name}")
    elif not all(map(is_blank, found := _texts(facts.get("caption"), "caption"))):
        captions = found
        facts = {name: value for name, value in facts.items() if name != "caption"}
    said: list[Said] = []
    if with_subtitles and (name := _track(parts, language)):
        said = subtitles.in_file(_text(parts[name](MAX_SUBTITLES), encoding, f".{name}"))
    return Beside(captions, facts, said)


class Neighbours:
    """Finds the files beside videos in a store. It sorts the names of a folder once."""

    def __init__(self, store: Folder) -> None:
        self._store = store
        self._sorted: dict[str, list[str]] = {}

    def of(self, path: str) -> dict[str, Read]:
        """Return a reader for each file that has the name of a video before its ending: `a.txt`, `a.en.srt` for `a.mp4`.

        A link to a file outside the store's folders is refused when it is read.
        """
        folder, slash, name = path.rpartition("/")
        stem = f"{os.path.splitext(name)[0]}.".lower()
        names = self._store.names(folder)
        lower = self._sorted.setdefault(folder, [])
        if not lower:
            lower += sorted(names)
        found: dict[str, Read] = {}
        for one in itertools.islice(lower, bisect.bisect_left(lower, stem), None):
            if not one.startswith(stem):
                break
            if one.rpartition(".")[2] in ENDINGS:
                found[one[len(stem) :]] = _reader(self._store, folder + slash + names[one][0])
        return found


def _reader(store: Folder, path: str) -> Read:
    def read(most: int) -> bytes:
        try:
            return store.read(path, most)
        except UnusableFile as error:
            raise VideoError(error.reason, f"{os.path.basename(path)} beside the video: {error}") from None

    return read


def _track(parts: Mapping[str, Read], language: str) -> str | None:
    found = sorted((name for name in parts if f".{name}".endswith(subtitles.ENDINGS)), key=lambda name: (len(name), name))
    own = [name for name in found if language and name.lower().startswith(language.lower())]
    return next(iter([*own, *found]), None)


def _facts(read: Read) -> dict[str, Any]:
    try:
        found = json.loads(read(MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise VideoError("bad_record", f"the JSON beside the video cannot be read: {error}") from None
    return found if isinstance(found, dict) else {"json": found}


def _text(data: bytes, encoding: str, name: str) -> str:
    try:
        return caption_text(data, encoding)
    except UnicodeDecodeError as error:
        raise VideoError("bad_encoding", f"the file {name} beside the video cannot be decoded: {error}") from None


def _texts(value: Any, name: str) -> list[str]:
    texts, reason = texts_in(value)
    if reason is not None:
        raise VideoError(reason, f"the text of {name} holds an unpaired surrogate or is not a text")
    return list(texts)
