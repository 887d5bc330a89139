"""MDS shards of MosaicML Streaming, from vlmdata or other tools. Images stay in uncompressed shards."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Member, Read
from vlmdata.parameters import Doc
from vlmdata.readers.captions import HEAD, named_columns, none_of
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.lists import check_columns
from vlmdata.readers.mds_index import INDEX, shards_in
from vlmdata.readers.mds_rows import MdsColumns
from vlmdata.readers.mds_shard import Opened, open_shard, samples
from vlmdata.readers.mds_values import IMAGES, holds_values, is_known, list_in, may_hold_images, value_in
from vlmdata.readers.open_file import UNREADABLE, Damage
from vlmdata.readers.plain_rows import bad_record, place, tables, with_place
from vlmdata.readers.strings import clean, is_blank
from vlmdata.readers.tar_samples import BadSample, names_within, sample_json
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError, Source
from vlmdata.untrusted import one_line

IMAGE_NAMES = ("image", "images", "jpg", "jpeg", "png", "webp", "img")
CAPTION_NAMES = ("caption", "captions", "text", "txt")
_OURS = (  # columns that `export --to mds` writes
    {"caption": "str", "image": "bytes", "json": "json", "key": "str"},
    {"images": "list[jpeg]", "json": "json", "key": "str", "roles": "json", "texts": "json"},
)
_TARS = Webdataset(path="")
RowOf = Callable[[Mapping[str, Member], str | None, Read], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Mds(Source):
    """Yield one row for each sample of the MDS shards that index.json lists: raw, or compressed with zstd, gz, bz2 or br.

    A sample with one image is a caption pair, and one with several images is a document with the caption at the end. What
    `export --to mds` wrote is read back without loss. Image files are not changed, and raw pixels become PNG. A row refers to
    image bytes in an uncompressed shard and does not copy them. Stated hashes are checked. Columns of the encoding `pkl` are
    never opened. A sample that cannot be read is dropped as `bad_record`. So is a whole shard with a wrong hash or header.
    """

    id: ClassVar = "vlmdata.sources.mds"
    example: ClassVar = "source: {type: mds, path: mds/train, image: image, caption: [caption]}"
    shuffled: ClassVar[bool] = False

    path: Annotated[
        str | list[str], Doc("Folders with index.json at any depth, or the addresses of index.json, on any store of fsspec.")
    ]
    image: Annotated[
        str,
        Doc("Column of images. Empty: the first of image, images, jpg, jpeg, png, webp and img, or the only one of images."),
    ] = ""
    url: Annotated[str, Doc("Column of the images' origins. Empty: the column `url`, if any.")] = ""
    caption: Annotated[
        str | list[str] | None,
        Doc(
            "Columns, or dotted paths into `json` columns, that hold captions. null: the first of caption, captions, text and "
            "txt. Empty: none."
        ),
    ] = None
    extra: Annotated[
        Literal["all"] | list[str], Doc("Other columns to keep in the sample's JSON. Bytes and images are left out.")
    ] = "all"

    def check(self) -> None:
        found = self.pieces()
        usable = [one for one in found if "problem" not in one]
        if found and not usable:
            raise RecipeError(f"{found[0]['path']}: {found[0]['problem']}. No other shard can be read either")
        for one in usable[:1]:
            if not self._is_ours(one):
                self._columns(one)

    def warning(self) -> str | None:
        """Return a warning if none of the first rows of a local dataset has a caption."""
        piece = next((one for one in self.pieces() if "problem" not in one and not is_remote(one["path"])), None)
        if piece is None or self._is_ours(piece) or not (names := self._columns(piece).captions):
            return None
        rows = [row for row in itertools.islice(self._rows(piece), HEAD) if not row.get("drop")]
        said = [text["text"] for row in rows for text in row["texts"] if text]
        return none_of(piece["path"], names, len(rows)) if rows and all(map(is_blank, said)) else None

    def files(self) -> list[File]:
        return sorted({*self._indexes(), *(File(one["path"], _size(one)) for one in self.pieces() if "problem" not in one)})

    def pieces(self) -> list[dict[str, Any]]:
        """Return the shards in all indexes. A shard that a merged index lists again is read once."""
        indexes = sorted(self._indexes(), key=lambda file: (file.path.count("/"), file.path))
        found = [one for file, name in zip(indexes, names_within(indexes), strict=True) for one in shards_in(file.path, name)]
        first = {one["path"]: one for one in reversed(found) if "problem" not in one}
        return [one for one in found if "problem" in one or first[one["path"]] is one]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(self._rows(piece))

    def _indexes(self) -> list[File]:
        found = [file for file in find(self.path, (INDEX,)) if _name(file.path) == INDEX]
        if not found:
            raise RecipeError(f"source.path: {self.path} has no file {INDEX}. Name the folder that holds it")
        return found

    def _is_ours(self, piece: Mapping[str, Any]) -> bool:
        columns = {name: encoding for name, encoding, _ in piece["columns"]}
        return not self.image and not self.url and self.caption is None and self.extra == "all" and columns in _OURS

    def _columns(self, piece: Mapping[str, Any]) -> MdsColumns:
        """Return the columns to read. Raises RecipeError if one does not exist or cannot be used."""
        encodings = {name: encoding for name, encoding, _ in piece["columns"]}
        names, where = list(encodings), piece["path"]
        image = self.image or next((name for name in IMAGE_NAMES if name in names), "")
        if not image:
            held = [name for name, encoding in encodings.items() if encoding in IMAGES]
            if len(held) != 1:
                raise RecipeError(f"{where}: which column holds the image? Set `image` to one of {', '.join(names)}")
            image = held[0]
        if self.caption is None:
            captions = [name for name in CAPTION_NAMES if name in names][:1]
            if not captions:
                options = f"Set `caption` to one of {', '.join(names)}, or to [] for no caption"
                raise RecipeError(f"{where}: which column holds the caption? {options}")
        else:
            captions = named_columns(self.caption)
        extra = [] if isinstance(self.extra, str) else self.extra
        heads = {name: name if name in names else name.partition(".")[0] for name in captions}
        check_columns(where, names, [image, *([self.url] if self.url else []), *heads.values(), *extra])
        _check_encoding(where, image, encodings[image], holds=may_hold_images(encodings[image]), what="images")
        readable = [name for name in names if holds_values(encodings[name]) and name != image]
        for name in (*heads.values(), *([self.url] if self.url else []), *extra):
            _check_encoding(where, name, encodings[name], holds=name in readable, what="texts or numbers")
        url = self.url or ("url" if "url" in readable else "")
        return MdsColumns(encodings, image, url, captions, heads, readable if self.extra == "all" else extra)

    def _rows(self, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        name = clean(piece["name"])
        if "problem" in piece:
            yield bad_record(name, clean(piece["problem"]), reason=piece["reason"])
            return
        with ExitStack() as stack:
            try:
                row_of = our_row if self._is_ours(piece) else self._columns(piece).row
                opened = open_shard(piece, stack)
            except (RecipeError, *UNREADABLE) as error:  # RecipeError: a shard with other columns than the first
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the temporary disk is full
                    raise
                problem = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
                yield bad_record(name, clean(problem))
                return
            try:
                for number, offset, cells in samples(opened.read, opened.length, piece["columns"], piece["samples"]):
                    yield _row(name, number, offset, cells, opened, row_of)
            except Damage as error:
                yield bad_record(name, str(error))
            if opened.problem:
                yield bad_record(name, clean(opened.problem))


def our_row(cells: Mapping[str, Member], blob: str | None, read: Read) -> dict[str, Any]:
    """Return the row of a sample that `export --to mds` wrote. Its columns have the same bytes as the members of our tars."""
    parts = {"jpg": cells["image"], "txt": cells["caption"]} if "image" in cells else {}
    if "images" in cells:
        facts = sample_json(cells["json"], read)
        places = facts.get("metadata") if isinstance(facts, dict) else None
        files: list[Any] = [one.get("file") for one in places if isinstance(one, dict)] if isinstance(places, list) else []
        images = list_in(cells["images"], "list[jpeg]", read)
        if len(files) != len(images) or not all(isinstance(file, str) for file in files):
            raise BadSample(f"its column 'images' holds {len(images)} images, and its JSON names {len(files)}")
        parts = {file.lower(): image for file, image in zip(files, images, strict=True)}
    members = [*parts.items(), ("json", cells["json"])]
    return _TARS.row(SampleMembers(value_in(cells["key"], "str", read), members), blob, read)


def _row(
    name: str, number: int, offset: int, cells: Mapping[str, Member] | BadSample, opened: Opened, row_of: RowOf
) -> dict[str, Any]:
    own_id = f"{name}/{number}"
    try:
        if isinstance(cells, BadSample):
            raise cells
        row = row_of(cells, opened.blob, opened.read)
        return with_place({"id": own_id, **row}, place(name, byte=offset), f"sample {number} cannot be used")
    except BadSample as error:
        return bad_record(name, f"sample {number}: {error}", byte=offset, reason=error.reason, id=own_id)


def _name(path: str) -> str:
    return os.path.basename(path.partition("::")[0])


def _size(piece: Mapping[str, Any]) -> int:
    return piece["bytes"] if is_remote(piece["path"]) else os.path.getsize(piece["path"])


def _check_encoding(where: str, name: str, encoding: str, *, holds: bool, what: str) -> None:
    """Raise RecipeError if a column that the recipe names cannot hold `what`."""
    if holds:
        return
    if encoding == "pkl":
        why = "which is never opened, because opening it runs code. Write this column with another encoding"
    else:
        why = f"which does not hold {what}" if is_known(encoding) else "which is unknown"
    raise RecipeError(f"{where}: the column {name!r} has the encoding {encoding!r}, {why}")
