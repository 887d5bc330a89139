"""Tars of interleaved documents as in MINT-1T and NeMo Curator: a sample has image files and a JSON with aligned lists."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.fields import renamed
from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Member, Read
from vlmdata.parameters import Doc
from vlmdata.readers.documents import positions
from vlmdata.readers.find_files import File, find
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import document, reject, tables
from vlmdata.readers.source_images import in_place, inline
from vlmdata.readers.strings import clean
from vlmdata.readers.tar_samples import ENDINGS, MAX_IMAGE, BadSample, member_bytes, names_within, sample_json, tar_rows
from vlmdata.readers.tiff_frames import Frames
from vlmdata.step import Source

FRAMES = (".tiff", ".tif")  # a TIFF holds all images of a MINT-1T PDF, in order


@dataclass(frozen=True, kw_only=True)
class InterleavedTars(Source):
    """Yield one row for each sample whose JSON has the lists `texts` and `images`.

    An entry of `images` names a member (`2.jpg`, `key.2.jpg`), is an address, or means the next frame of the sample's TIFF.
    An image that is missing in the tar is dropped as `no_image`. A sample that cannot be read is dropped as `bad_record`. Use
    `webdataset` for tars from vlmdata, because that source keeps all fields of their JSON.
    """

    id: ClassVar = "vlmdata.sources.interleaved_tars"
    example: ClassVar = "source: {type: interleaved_tars, path: documents/*.tar}"
    gives: ClassVar = "documents"
    shuffled: ClassVar[bool] = False

    path: Annotated[str | list[str], Doc("Tars, or folders or globs of them, local or on any store that fsspec knows.")]
    max_memory_mb: Annotated[
        int,
        Doc(
            "Memory to decode one TIFF frame. A frame that needs more is dropped as `too_large`.",
            unit="MB (1,000,000 bytes)",
            source="vlmdata's choice",
        ),
    ] = MAX_MEMORY_MB
    max_cost: Annotated[
        int,
        Doc(
            "Greatest cost of all frames of a TIFF. Later frames are dropped as `too_costly`.",
            unit="units of about 10 ms",
            source="vlmdata's choice",
        ),
    ] = MAX_COST

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        files = self.files()
        return [{"path": file.path, "name": name} for file, name in zip(files, names_within(files), strict=True)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        limits = {"max_memory_mb": self.max_memory_mb, "max_cost": self.max_cost}
        return tables(tar_rows(piece["path"], piece["name"], functools.partial(_row, limits=limits)))


def _row(sample: SampleMembers, blob: str | None, read: Read, *, limits: dict[str, int]) -> dict[str, Any]:
    members = {name.lower(): member for name, member in sample.members}
    facts = sample_json(members.get("json"), read)
    if not isinstance(facts, dict) or not all(isinstance(facts.get(name), list) for name in ("texts", "images")):
        raise BadSample("it has no JSON with the lists `texts` and `images`")
    texts, images = facts["texts"], facts["images"]
    if (wrong := next((n for n, text in enumerate(texts) if not isinstance(text, str | None)), None)) is not None:
        raise BadSample(f"texts[{wrong}] in its JSON is not a string", "no_text")
    if any(text and clean(text) != text for text in texts):
        raise BadSample("its JSON holds a text with an unpaired surrogate", "bad_encoding")
    tiff = next((member for name, member in members.items() if f".{name}".endswith(FRAMES)), None)
    frames = Frames(None if tiff is None else member_bytes(read, tiff, MAX_IMAGE), **limits)

    def image_of(place: int, entry: Any) -> dict[str, Any]:
        name = str(entry)
        if name.startswith(("http://", "https://")):
            return {"url": clean(name)}
        member = _member(members, sample.key, name)
        if member is not None:
            data = member_bytes(read, member, MAX_IMAGE)
            return inline(data) if blob is None else in_place(blob, member.offset, data)
        return frames.following()

    row = document(positions(texts, images, image_of), **_about(sample.key, facts))
    kept = [image for image in row["images"] if image and not image.get("drop")]
    if not row["images"]:
        return reject(row, "empty_document")
    return reject(row, "no_image" if not kept and any(row["images"]) else None)


def _about(key: str, facts: dict[str, Any]) -> dict[str, Any]:
    url = facts["url"] if isinstance(facts.get("url"), str) else None
    used = ("texts", "images") if url is None and facts.get("url") is not None else ("texts", "images", "url")
    own = renamed({name: value for name, value in facts.items() if name not in used}, ["source_key"])
    return {"url": None if url is None else clean(url), "extra": clean(json_object({**own, "source_key": key}))}


def _member(members: dict[str, Member], key: str, name: str) -> Member | None:
    """Return the member that an entry names, or None. `members` maps the part of a member's name after the key to the member.

    The entry holds this part (`2.jpg`) or the full name (`key.2.jpg`).
    """
    short = name.rpartition("/")[2].lower()
    whole = short.removeprefix(f"{key.rpartition('/')[2]}.".lower())
    return members.get(short, members.get(whole))  # in the sample `0` the entry `0.png` may mean `0.0.png`
