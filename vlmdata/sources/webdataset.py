"""Existing tars in WebDataset's form, ours or others': captions or interleaved documents, their images left in place."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import fsspec
import pyarrow as pa

from vlmdata.intake.documents import SIZES
from vlmdata.intake.find import File, find
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import in_place, inline
from vlmdata.intake.places import boxes
from vlmdata.intake.rows import document, pair, reject, tables
from vlmdata.intake.strings import clean
from vlmdata.intake.tars import ENDINGS, Read, names_within, tar_rows
from vlmdata.loader.scan import IMAGE_EXTENSIONS
from vlmdata.loader.tar import Member, TarSample
from vlmdata.step import Source

OURS = {
    "url",
    "alt",
    *SIZES,
    "time_s",
    "boxes",
    "sha256",
    "key",
    "width",
    "height",
    "phash",
    "caption",
    "alternatives",
    "scores",
    "file",
}
PAGE = {"texts", "images", "metadata", "files", "roles"}


@dataclass(frozen=True, kw_only=True)
class Webdataset(Source):
    """Samples of tars: of a plain tar the bytes of images are referred to, never copied; a compressed one is unpacked.

    What vlmdata or img2dataset wrote is read without loss: addresses, hashes, alternatives, boxes, roles and, as
    `earlier_scores` in the sample's JSON, scores. A sample without an image is dropped as `no_image` (unless it is a
    document with roles), one whose image is none with the reason, the rest of a damaged tar as one `bad_record`.
    """

    shuffled: ClassVar[bool] = False

    path: str | list[str]
    caption: list[str] = field(default_factory=lambda: ["txt", "text", "caption"])  # extensions, then fields of the JSON

    def files(self) -> list[File]:
        paths = [self.path] if isinstance(self.path, str) else self.path
        return find([_shards_of(path) for path in paths], ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        files = self.files()
        return [{"path": file.path, "name": name} for file, name in zip(files, names_within(files), strict=True)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(tar_rows(piece["path"], piece["name"], self._row))

    def _row(self, sample: TarSample, blob: str | None, read: Read) -> dict[str, Any]:
        parts = dict(sample.members)
        facts: Any = {}
        if "json" in parts:
            try:
                facts = json.loads(read(parts["json"].offset, parts["json"].size))
            except (ValueError, RecursionError):
                return _bad_record(sample)
        if not isinstance(facts, dict):
            facts = {"json": facts}
        if isinstance(facts.get("texts"), list) and isinstance(facts.get("metadata"), list):
            try:
                return _document(sample, parts, facts, blob, read)
            except (KeyError, TypeError, ValueError, AttributeError):  # lists of others, which do not fit together as ours do
                return _bad_record(sample)
        pictures = [member for name, member in sample.members if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
        captions = [*self._captions(parts, facts, read), *_texts(facts.get("alternatives"))]
        fields = {"extra": _extra(sample.key, facts, OURS)}
        if len(pictures) == 1:
            return pair({**_image(pictures[0], blob, read), **_told(facts)}, captions, **fields)
        images = [_image(member, blob, read) for member in pictures]
        row = document([*images, *captions[:1]], **fields)
        return reject(row, "no_image" if not images else images[0].get("reason"))

    def _captions(self, parts: Mapping[str, Member], facts: Mapping[str, Any], read: Read) -> list[str]:
        """Return the first caption there is, in the order of `caption`."""
        for name in self.caption:
            if name in parts:
                return [read(parts[name].offset, parts[name].size).decode("utf-8", "replace")]
            if isinstance(value := facts.get(name), str):
                return [clean(value)]
            if texts := _texts(value):
                return texts
        return []


def _texts(value: object) -> list[str]:
    """Return the texts of a list; of anything else, none."""
    return [clean(text) for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _bad_record(sample: TarSample) -> dict[str, Any]:
    return reject({"extra": json_object({"source_key": sample.key})}, "bad_record")


def _shards_of(path: str) -> str:
    """Return a folder as it is, or of one that vlmdata built the tars at its top: those in its work/ are the same ones."""
    try:
        fs, inside = fsspec.url_to_fs(path)
        return f"{path.rstrip('/')}/*.tar" if fs.isfile(f"{inside.rstrip('/')}/manifest.json") else path
    except (OSError, ValueError, ImportError):
        return path  # `find` says what is wrong with it


def _image(member: Member, blob: str | None, read: Read) -> dict[str, Any]:
    data = read(member.offset, member.size)
    return inline(data) if blob is None else in_place(blob, member.offset, data)


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sample's JSON says of its image, where it says it in the right type."""
    told: dict[str, Any] = {name: clean(facts[name]) for name in ("url", "alt") if isinstance(facts.get(name), str)}
    told |= {name: facts[name] for name in SIZES if type(facts.get(name)) is int and 0 <= facts[name] < 1 << 31}
    if type(facts.get("time_s")) is float and math.isfinite(facts["time_s"]):
        told["time_s"] = facts["time_s"]
    if found := boxes(facts.get("boxes")):
        told["boxes"] = found
    if re.fullmatch("[0-9a-f]{64}", str(facts.get("sha256"))):
        told["sha256"] = facts["sha256"]
    if re.fullmatch("[0-9a-f]{1,16}", str(facts.get("phash"))):
        told["phash"] = int(str(facts["phash"]), 16)
    return told


def _document(sample: TarSample, parts: Mapping[str, Member], facts: Any, blob: str | None, read: Read) -> dict[str, Any]:
    positions: list[dict[str, Any] | str | None] = []
    reason = None
    for text, metadata, url in zip(facts["texts"], facts["metadata"], facts["images"], strict=True):
        if text is not None:
            positions.append(clean(text))
            continue
        member = parts.get(metadata["file"].lower())
        image = {"drop": "source", "reason": "no_image"} if member is None else _image(member, blob, read)
        positions.append({**image, **_told({**metadata, "url": url})})
        reason = reason or image.get("reason")
    url, roles = facts.get("url"), facts.get("roles")
    if roles is not None and (len(roles) != len(positions) or not all(isinstance(role, str) for role in roles)):
        raise ValueError("as many roles as positions")
    page = clean(url) if isinstance(url, str) else None
    row = document(positions, extra=_extra(sample.key, facts, OURS | PAGE), url=page, roles=roles)
    for text, others in zip(row["texts"], facts.get("alternatives") or [], strict=False):
        if text is not None:
            text["alternatives"] = _texts(others) or None
    lost_all = reason and all(image is None or image.get("reason") for image in row["images"])
    return reject(row, reason if lost_all else None)


def _extra(key: str, facts: Mapping[str, Any], known: set[str]) -> str:
    own: dict[str, Any] = {name: value for name, value in facts.items() if name not in known}
    own["source_key"] = key
    if facts.get("scores"):
        own["earlier_scores"] = facts["scores"]
    return clean(json_object(own))
