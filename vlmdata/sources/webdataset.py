"""Existing tars in WebDataset's form, ours or others': captions or interleaved documents, their images left in place."""

import itertools
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import fsspec
import pyarrow as pa

from vlmdata.fields import FIELDS, PAGE, is_ours
from vlmdata.intake.documents import SIZES
from vlmdata.intake.find import File, find, is_remote
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import in_place, inline
from vlmdata.intake.places import boxes
from vlmdata.intake.rows import document, pair, reject, tables
from vlmdata.intake.strings import caption_text, check_encoding, clean
from vlmdata.intake.tars import (
    ENDINGS,
    MAX_CAPTION,
    MAX_IMAGE,
    BadSample,
    RowOf,
    member_bytes,
    names_within,
    sample_json,
    tar_rows,
)
from vlmdata.loader.grouping import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS, UNREAD_IMAGE_EXTENSIONS, TarSample
from vlmdata.loader.tar import Member, Read
from vlmdata.step import RecipeError, Source


@dataclass(frozen=True, kw_only=True)
class Webdataset(Source):
    """Samples of tars: of a plain tar the bytes of images are referred to, never copied; a compressed one is unpacked.

    What vlmdata or img2dataset wrote is read without loss: addresses, hashes, alternatives, boxes, roles and, as
    `earlier_scores` in the sample's JSON, scores. A sample without an image is dropped as `no_image` (unless it is a
    document with roles), one whose image is none with the reason, each stretch that a damaged tar has lost as one `bad_record`.
    Members are named by what follows their key (`jpg`, `input.jpg`) or by its end (`jpg` where there is no other).
    """

    shuffled: ClassVar[bool] = False

    path: str | list[str]
    caption: list[str] = field(default_factory=lambda: list(CAPTION_EXTENSIONS))  # members or fields of the JSON
    image: str | list[str] | None = None  # members: every image of a sample unless named here
    encoding: str = "utf-8"  # of captions without a mark that says otherwise

    def check(self) -> None:
        check_encoding(self.encoding)
        if self.image == []:
            raise RecipeError("image: name at least one member, or leave it out for all images")
        super().check()

    def files(self) -> list[File]:
        paths = [self.path] if isinstance(self.path, str) else self.path
        return find([_shards_of(path) for path in paths], ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        files = self.files()
        return [{"path": file.path, "name": name} for file, name in zip(files, names_within(files), strict=True)]

    def warning(self) -> str | None:
        """Say, if most of the first 100 samples of a plain local tar have an image and no caption, what else they have."""
        piece = next(
            (piece for piece in self.pieces() if piece["path"].endswith(".tar") and not is_remote(piece["path"])), None
        )
        if piece is None:
            return None
        bare: list[str] = []

        def look(sample: TarSample, blob: str | None, read: Read) -> dict[str, Any]:
            row = self.row(sample, blob, read)
            if row.get("texts") and not row.get("drop") and not any(text and text["text"] for text in row["texts"]):
                bare.append(", ".join(sorted({*dict(sample.members), *json.loads(row["extra"])} - {"source_key"})))
            return row

        seen = sum(1 for _ in itertools.islice(self._rows(piece, look), 100))
        if 2 * len(bare) <= seen:
            return None
        what = f"{len(bare)} of the first {seen} samples of {piece['name']} have an image and no caption"
        return f"{what}; members and fields of the first are {bare[0]}: name one as `caption`"

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(self._rows(piece, self.row))

    def _rows(self, piece: dict[str, Any], row_of: RowOf) -> Iterator[dict[str, Any]]:
        dotted = any("." in name.strip(".") for name in [*self.caption, *self._images()])  # such names count from the first dot
        return tar_rows(piece["path"], piece["name"], row_of, longer_names=not dotted)

    def _images(self) -> list[str]:
        return [self.image] if isinstance(self.image, str) else self.image or []

    def row(self, sample: TarSample, blob: str | None, read: Read) -> dict[str, Any]:
        """Return the row of a sample; its images stay in `blob`, the path of the tar, or go along. Raises BadSample."""
        parts = dict(sample.members)
        described = _named(parts, ["json"])
        facts: Any = sample_json(parts[described[0]] if len(described) == 1 else None, read)
        facts = {} if facts is None else facts if isinstance(facts, dict) else {"json": facts}
        if isinstance(facts.get("texts"), list) and isinstance(facts.get("metadata"), list):
            try:
                return _document(sample, parts, facts, blob, read)
            except BadSample:
                raise
            except (KeyError, TypeError, ValueError, AttributeError):  # lists of others, which do not fit together as ours do
                raise BadSample("its texts, images and metadata do not fit together") from None
        fields = {"extra": _extra(sample.key, facts, FIELDS.keys() - PAGE)}
        pictures = self._pictures(parts)
        if not pictures:
            return reject(fields, "no_image")
        captions = [*self._captions(parts, facts, read), *_texts(facts.get("alternatives"))]
        if len(pictures) == 1:
            return pair({**_image(pictures[0], blob, read), **_told(facts)}, captions, **fields)
        images = [_image(member, blob, read) for member in pictures]
        row = document([*images, *captions[:1]], **fields)
        return reject(row, images[0].get("reason") if all(image.get("reason") for image in images) else None)

    def _pictures(self, parts: Mapping[str, Member]) -> list[Member]:
        """Return the images that are named, else all, else those of formats that are not decoded: they tell the reason."""
        if self.image is not None:
            return [parts[name] for name in _named(parts, self._images())]
        endings = {name: name.rpartition(".")[2] for name in parts}
        pictures = [name for name in parts if endings[name] in IMAGE_EXTENSIONS]
        return [parts[name] for name in pictures or [name for name in parts if endings[name] in UNREAD_IMAGE_EXTENSIONS]]

    def _captions(self, parts: Mapping[str, Member], facts: Mapping[str, Any], read: Read) -> list[str]:
        """Return the first caption that is not blank, in the order of `caption`, else of the only member that ends as named.

        Raises BadSample where several end so, or where captions were named that the sample does not have.
        """
        for name in self.caption:
            member = parts.get(_plain(name))
            value = facts.get(name)
            found = [self._text(name, member, read)] if member else _texts([value] if isinstance(value, str) else value)
            if any(text.strip() for text in found):
                return found
        others = [name for name in _named(parts, self.caption) if "." in name and name not in map(_plain, self.caption)]
        if len(others) > 1:
            raise BadSample(f"several captions, {', '.join(others[:9])}: name one as `caption`", "several_captions")
        found = [self._text(name, parts[name], read) for name in others]
        if self.caption and self.caption != list(CAPTION_EXTENSIONS) and not any(text.strip() for text in found):
            raise BadSample(f"it has no caption {' or '.join(self.caption)}", "no_caption")
        return found

    def _text(self, name: str, member: Member, read: Read) -> str:
        try:
            return caption_text(member_bytes(read, member, MAX_CAPTION), self.encoding)
        except UnicodeDecodeError as error:
            raise BadSample(f"its caption '{name}' does not decode: {error}", "bad_encoding") from None


def _plain(name: str) -> str:
    """Return how a tar's samples call a member that a recipe names: `.TXT` is `txt`."""
    return name.lstrip(".").lower()


def _named(parts: Mapping[str, Member], names: Sequence[str]) -> list[str]:
    """Return the members of these names, in the order of the names; where there is none, those that end in one of them."""
    plain = [_plain(name) for name in names]
    return [name for name in plain if name in parts] or [
        name for name in parts if name.endswith(tuple(f".{ending}" for ending in plain))
    ]


def _texts(value: object) -> list[str]:
    """Return the texts of a list; of anything else, none. Raises BadSample for half a surrogate pair in one."""
    found = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    if any(clean(text) != text for text in found):
        raise BadSample("a caption holds half a surrogate pair", "bad_encoding")
    return found


def _shards_of(path: str) -> str:
    """Return a folder as it is, or of one that vlmdata built the tars at its top: those in its work/ are the same ones."""
    try:
        fs, inside = fsspec.url_to_fs(path)
        return f"{path.rstrip('/')}/*.tar" if fs.isfile(f"{inside.rstrip('/')}/manifest.json") else path
    except (OSError, ValueError, ImportError):
        return path  # `find` says what is wrong with it


def _image(member: Member, blob: str | None, read: Read) -> dict[str, Any]:
    data = member_bytes(read, member, MAX_IMAGE)
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
    row = document(positions, extra=_extra(sample.key, facts, FIELDS.keys()), url=page, roles=roles)
    for text, others in zip(row["texts"], facts.get("alternatives") or [], strict=False):
        if text is not None:
            text["alternatives"] = _texts(others) or None
    lost_all = reason and all(image is None or image.get("reason") for image in row["images"])
    return reject(row, reason if lost_all else None)


def _extra(key: str, facts: Mapping[str, Any], known: Collection[str]) -> str:
    own: dict[str, Any] = {name: value for name, value in facts.items() if name not in known or not is_ours(name, value, key)}
    own["source_key"] = key
    if isinstance(facts.get("scores"), dict):
        own["earlier_scores"] = facts["scores"]
    return clean(json_object(own))
