"""Folders and zip archives of images, with captions in files beside the images or in a table that names the images."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc
from vlmdata.readers import lists
from vlmdata.readers.captions import named_columns, without_captions
from vlmdata.readers.column_types import CAPTION, FILE_NAME
from vlmdata.readers.dotted_paths import NO_TEXT, value_at
from vlmdata.readers.exported_folder import Entry, document_in, entries, placed
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.image_files import IMAGES, FileStore, Folder, Survey, Zip, beside, image_at, survey
from vlmdata.readers.image_tables import named_rows
from vlmdata.readers.nameable_files import folder_of, is_folder
from vlmdata.readers.nested import texts_in
from vlmdata.readers.open_file import Damage
from vlmdata.readers.overlooked_files import TEXTS, in_sibling, overlooked
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, pair, tables, with_place
from vlmdata.readers.sample_facts import (
    is_own_sample,
    origins_in,
    own_caption,
    own_texts,
    stated_fields,
    unstated_fields,
    with_grounding,
    with_origin,
)
from vlmdata.readers.source_images import keep_addresses
from vlmdata.readers.strings import caption_text, check_encoding, clean, is_blank
from vlmdata.readers.tar_samples import BadSample, names_within
from vlmdata.readers.zip_members import UnusableFile
from vlmdata.sizes import counted, noun
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError, Source

SLICE = 1000  # images in a piece
HEAD = 100  # number of images whose captions `warning` reads
TEXT = 1 << 20  # largest caption file, in bytes
FACTS = 16 << 20  # largest .json, in bytes


@dataclass(frozen=True, kw_only=True)
class Files(Source):
    """Yield one row for each image in folders (at any depth), globs or zip archives.

    `a.txt`, `a.jpg.txt` or `a.json` holds the captions of `a.jpg`. An image without a caption is dropped as `no_caption` if any
    image has such a file. With `table`, a list in any format of `url_list` (such as a Hugging Face image folder's
    metadata.csv) names the files and holds their captions. Images stay in place. A missing image is dropped as `no_file`.
    Samples that vlmdata exported as a folder are read without loss. There, a document or conversation is one row.
    """

    id: ClassVar = "vlmdata.sources.files"
    example: ClassVar = "source: {type: files, path: photos, table: metadata.csv, file: file_name, caption: text}"

    path: Annotated[str | list[str], Doc("Folders, globs or zip archives of images.")]
    images: Annotated[list[str], Doc("Endings of image files. In a folder without images, .zip files are read.")] = field(
        default_factory=lambda: list(IMAGES)
    )
    captions: Annotated[list[str], Doc("Endings of caption files.", source="vlmdata's choice")] = field(
        default_factory=lambda: [".txt", ".text", ".caption"]
    )
    table: Annotated[
        str,
        Doc("Path of a table of images and captions, relative to the folder `path`. Empty: captions stand beside the images."),
    ] = ""
    file: Annotated[
        str, Doc("The table's column of file names, relative to the table's folder.", source="Hugging Face image folders")
    ] = "file_name"
    caption: Annotated[str | list[str], Doc("The table's caption columns. Without a table, fields of the .json.")] = "caption"
    extra: Annotated[
        Literal["all"] | list[str], Doc("Other columns of the table or fields of the .json to keep in the sample's JSON.")
    ] = "all"
    encoding: Annotated[str, Doc("Encoding of captions and tables. UTF-8 and UTF-16 with a byte order mark are detected.")] = (
        "utf-8"
    )

    @property
    def shuffled(self) -> bool:  # type: ignore[override]
        """Whether the rows are put in the order of their keys, like those of an address list. True if `table` is set.

        Without a table, a folder is read slice by slice.
        """
        return bool(self.table)

    def check(self) -> None:
        check_encoding(self.encoding)
        if bad := [ending for ending in (*self.images, *self.captions) if "." not in ending]:
            raise RecipeError(f"`images` and `captions` must hold file endings with a dot, such as '.{bad[0]}', not '{bad[0]}'")
        paths = self._paths()
        for path in paths if "" not in paths else ():  # an empty path has a message of its own
            if os.path.isfile(os.path.expanduser(path)) and not path.lower().endswith((*self._endings(), ".zip")):
                raise RecipeError(
                    f"{path} is not an image or a zip archive. Set source.path to the folder of the images; "
                    f"if {os.path.basename(path)} lists them, set source.table={os.path.basename(path)}"
                )
        if not self.table:
            if not self.pieces():
                raise RecipeError(f"{self.path}: there is no image with one of the endings {', '.join(self.images)}")
            return
        layout = lists.ListFormat(encoding=self.encoding)
        contents = {**dict.fromkeys(self._columns(), CAPTION), self.file: FILE_NAME}
        for path in lists.checked_files(self._lists(), lambda path: lists.format_of(path, layout)):
            lists.check_file(path, layout, [self.file, *self._columns()], contents, keeps_all=self.extra == "all")

    def files(self) -> list[File]:
        if self.table:
            return self._lists()
        images, zips = self._found()
        return sorted([*images, *zips])

    def carries(self) -> Sequence[str]:
        if not self.table or not isinstance(self.extra, str):
            return () if isinstance(self.extra, str) else self.extra
        return lists.first_columns(self._lists(), lists.ListFormat(), (self.file, *self._columns()))

    def pieces(self) -> list[dict[str, Any]]:
        if self.table:
            return lists.named_pieces(self._lists())
        images, zips = self._found()
        loose = [file.path for file in images]
        about = survey(self._folder(), loose, self.captions, [file.path for file in zips])
        others = Counter(about.others())
        found = self._slices({}, self._entries(self._folder(), loose), about)
        for file in zips:
            try:
                archive = Zip(file.path)
            except Damage:
                found.append({"zip": file.path, "start": 0})  # `read` reports the damage
                continue
            inside = archive.members(self._endings())
            about = survey(archive, inside, self.captions)
            others.update(about.others())
            others.update({"repeated_name": archive.repeats} if archive.repeats else {})
            found += self._slices({"zip": file.path}, self._entries(archive, inside), about)
        return [{**found[0], "others": dict(others)}, *found[1:]] if found and others else found

    def warning(self) -> str | None:
        """Return a warning about missing captions, or None.

        If the source has a table, the warning is given if none of its first 100 rows has a caption. If it has no table, two
        conditions must hold: most of the first images have no caption, and there is another place that may hold the captions.
        The warning then names this place.
        """
        if self.table:
            return without_captions(self._lists(), lists.ListFormat(encoding=self.encoding), self._columns())
        if not (self.captions or self._columns()) or any(map(is_remote, self._paths())):  # each text would cost a request
            return None
        images, zips = self._found()
        roots = [os.path.abspath(root) for root in self._roots()]
        try:
            store: Folder | Zip = Folder(roots, roots) if images else Zip(zips[0].path)
        except Damage:  # `read` reports the damage
            return None
        every = [file.path for file in images] if isinstance(store, Folder) else store.members(self._endings())
        head = [path for path, parts in self._entries(store, every) if parts is None][:HEAD]
        bare = [path for path in head if not self._is_captioned(store, path)]
        if 2 * len(bare) <= len(head):
            return None
        hint = self._overlooked(store, bare[0], roots[0] if isinstance(store, Folder) else "")
        have = noun(len(bare), "has", "have")
        return hint and f"{len(bare)} of the first {counted(len(head), 'image')} of {self.path} {have} no caption. {hint}"

    def _is_captioned(self, store: FileStore, path: str) -> bool:
        """Return whether an image has a caption.

        If its caption file is unreadable, return True, because `read` reports such a file.
        """
        try:
            captions, _, _ = self._beside(store, path)
        except BadText:
            return True
        return not all(map(is_blank, captions))

    def _overlooked(self, store: Folder | Zip, path: str, root: str) -> str | None:
        read = {one for ending in (*self.captions, ".json") for one in beside(store, path, ending)}
        inside = f"{root}/" if root else ""
        texts = [one.removeprefix(inside) for one in store.members(TEXTS) if one not in read]
        texts += in_sibling(path, root) if root and not texts else ()
        return overlooked(path.removeprefix(inside), texts, self._beside(store, path)[1])

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the rows of `read`. `others` receives the counts of unread files: archives, texts without an image, pipes."""
        if self.table:
            yield from named_rows(
                piece["path"], piece["name"], self.file, self._columns(), extra=self.extra, encoding=self.encoding
            )
            return
        others.update(piece.get("others", {}))
        yield from tables(self._zipped(piece) if "zip" in piece else self._loose(piece))

    def _loose(self, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        files, _ = self._found()
        store = self._folder()
        found = self._entries_of(piece, store, [file.path for file in files])
        names = names_within([File(path, 0) for path, _ in found])
        named = list(zip(found, names, strict=True))[piece["start"] : piece["start"] + SLICE]
        return (row for entry, name in named for row in self._rows_of(store, entry, name, piece["needs_text"]))

    def _zipped(self, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        _, zips = self._found()
        name = dict(zip([file.path for file in zips], names_within(zips), strict=True))[piece["zip"]]
        try:
            store = Zip(piece["zip"])
        except Damage as error:
            yield bad_record(name, str(error))
            return
        found = self._entries_of(piece, store, store.members(self._endings()))
        for entry in found[piece["start"] : piece["start"] + SLICE]:
            yield from self._rows_of(store, entry, f"{name}/{entry.path}", piece["needs_text"])

    def _slices(self, piece: Mapping[str, Any], found: Sequence[Entry], about: Survey) -> list[dict[str, Any]]:
        """Return the units of work for a folder or zip archive: slices of its entries. `documents` marks entries of documents.

        If an image has a file beside it that may hold its caption, `needs_text` is True in all units. Images without a caption
        are then dropped. `needs_text` is False if the recipe names no captions.
        """
        needs_text = about.has_texts and bool(self.captions or self._columns())
        mark = {"documents": True} if any(entry.parts is not None for entry in found) else {}
        return [{**piece, **mark, "start": start, "needs_text": needs_text} for start in range(0, len(found), SLICE)]

    def _folder(self) -> Folder:
        return Folder(self._roots(), self._whole())

    def _entries(self, store: Folder | Zip, images: Sequence[str]) -> list[Entry]:
        """Return the files that give rows. If the recipe names no captions, these are the images, also those of documents."""
        return entries(store, images) if self.captions or self._columns() else [Entry(path) for path in images]

    def _entries_of(self, piece: Mapping[str, Any], store: Folder | Zip, images: Sequence[str]) -> list[Entry]:
        """Return the entries that the slices of a plan count: the images, in a plan from before documents were read."""
        return self._entries(store, images) if "documents" in piece else [Entry(path) for path in images]

    def _paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    def _roots(self) -> list[str]:
        return [folder_of(path, self._endings()) for path in self._paths()]

    def _whole(self) -> list[str]:
        """Return the entries of `path` that are folders, local or remote. `survey` examines all their subfolders."""
        return [path for path in self._paths() if is_folder(path, (*self._endings(), ".zip"))]

    def _endings(self) -> tuple[str, ...]:
        return tuple(ending.lower() for ending in self.images)

    def _found(self) -> tuple[list[File], list[File]]:
        """Return the images and the zip archives. Archives in a folder that holds images are left out."""
        found: set[File] = set()
        for path in self._paths() or [""]:
            try:
                found.update(find(path, self._endings()))
            except RecipeError as error:
                try:
                    found.update(find(path, (".zip",)))
                except RecipeError:
                    raise error from None
        zips = [file for file in sorted(found) if file.path.lower().endswith(".zip")]
        return sorted(found.difference(zips)), zips

    def _lists(self) -> list[File]:
        if not isinstance(self.path, str):
            raise RecipeError("if `table` is set, `path` must be the one folder that holds the table, not a list")
        place = f"{self.path.rstrip('/')}/{self.table}"
        folder, table = (os.path.abspath(at_home(one)) for one in (self.path, self.table))
        if not is_remote(place) and not os.path.exists(at_home(place)) and os.path.isfile(table):
            is_inside = os.path.commonpath((folder, table)) == folder
            fix = f"Set source.table={os.path.relpath(table, folder)}" if is_inside else f"Put the table into {self.path}"
            raise RecipeError(f"source.table is relative to source.path, so it cannot be {self.table}. {fix}")
        return find(place, lists.ENDINGS, parameter="source.table")

    def _columns(self) -> list[str]:
        return named_columns(self.caption)

    def _rows_of(self, store: Folder | Zip, entry: Entry, name: str, needs_text: bool) -> Iterator[dict[str, Any]]:
        """Yield the row of an image or of a document that vlmdata exported.

        If a JSON with the name of a document has other content, yield the rows of the images that seemed to be its parts.
        """
        if entry.parts is None:
            yield self._row(store, entry.path, name, needs_text=needs_text)
            return
        name = clean(name)
        try:
            found = document_in(store, entry.path)
            if found is not None:
                sample, read, paths = found
                row = {"id": name, **Webdataset(path="").row(sample, None, read)}
                facts = json.loads(row["extra"])
                row["extra"] = json_object(
                    {field: facts[field] for field in facts if field == "source_key" or self._carries(field)}
                )
                yield with_place(placed(row, paths) if isinstance(store, Folder) else row, name)
                return
        except (BadSample, UnusableFile) as error:
            yield bad_record(name, str(error), reason=error.reason, id=name)
            return
        for path in entry.parts:
            inside = name.rpartition("/")[0] + "/" + path.rpartition("/")[2]
            yield self._row(store, path, inside.lstrip("/"), needs_text=needs_text)

    def _row(self, store: FileStore, path: str, name: str, *, needs_text: bool) -> dict[str, Any]:
        """Return the row of an image with its captions and facts from the files beside it."""
        image, name = image_at(store, path), clean(name)
        try:
            captions, facts, fault = self._beside(store, path)
        except BadText as error:
            where = clean(name.rpartition("/")[0] + "/" + error.file).lstrip("/")
            fields: dict[str, Any] = {"id": name, "images": [image, None], "texts": [None, {"text": ""}]}
            return bad_record(where, str(error), reason=error.reason, **fields)
        stem = os.path.splitext(os.path.basename(path))[0]
        is_stated = is_own_sample(facts, stem)
        if needs_text and all(map(is_blank, captions)) and not is_stated:
            fault = fault or "no_caption"
        used = {*self._columns(), *keep_addresses([image], facts)}
        stated = stated_fields(facts) if is_stated else {}
        origins = origins_in(facts) if is_stated and (self.captions or self._columns()) else []
        reason = image.get("reason") or fault
        row = pair({**image, **stated}, captions, origins=origins, id=f"{name}\n{captions}", reason=reason)
        row = with_grounding(row, facts) if is_stated else row
        left = unstated_fields(facts, stem, row, image).items()
        rest = {field: value for field, value in left if field not in used and self._carries(field)}
        scored = facts if self._carries("scores") or self._carries("earlier_scores") else {}
        origin = {"source_key": stem} if is_stated else {"file_name": name}
        return with_place({**row, "extra": clean(json_object(with_origin(rest, scored, stem, **origin)))}, name)

    def _beside(self, store: FileStore, path: str) -> tuple[list[str], Mapping[str, Any], str | None]:
        """Return an image's captions, the JSON beside the image, and the reason to drop the image (None if it is not dropped).

        Raises BadText if a file beside the image cannot be read.
        """
        captions: list[str] = []
        facts: Any = {}
        fault: str | None = None
        text = ""
        try:
            for text in beside(store, path, ".json"):
                facts = json.loads(caption_text(store.read(text, FACTS), self.encoding))
            is_stated = is_own_sample(facts, os.path.splitext(os.path.basename(path))[0])
            for text in (one for ending in self.captions for one in beside(store, path, ending)):
                data = store.read(text, TEXT)
                if is_stated and (own := own_caption(facts, data)) is not None:
                    captions.append(own)
                    continue
                said, wrong = texts_in(caption_text(data, self.encoding).strip())
                captions, fault = captions + said, fault or wrong
        except (UnusableFile, ValueError, RecursionError) as error:
            raise BadText(text.rpartition("/")[2], *_fault(error)) from None
        facts = facts if isinstance(facts, Mapping) else {"json": facts}
        for column in self._columns():
            value = value_at(facts, column, NO_TEXT)
            said, wrong = own_texts([value]) if is_stated and column == "caption" else texts_in(value)
            captions, fault = captions + said, fault or wrong
        if is_stated and (self.captions or self._columns()):
            said, wrong = own_texts(facts.get("alternatives"))
            captions, fault = captions + said, fault or wrong
        return captions, facts, fault

    def _carries(self, field: str) -> bool:
        return self.extra == "all" or field in self.extra


class BadText(ValueError):
    """Raised if a file beside an image cannot be read. The message says why, and `reason` goes into the ledger."""

    def __init__(self, file: str, why: str, reason: str) -> None:
        super().__init__(why)
        self.file, self.reason = file, reason


def _fault(error: Exception) -> tuple[str, str]:
    """Return a message and a reason for an error in a file beside an image."""
    if isinstance(error, UnusableFile):
        return str(error), error.reason
    if isinstance(error, UnicodeDecodeError):
        return f"the file is not in {error.encoding} ({error.reason}). Set `encoding:`", "bad_encoding"
    return f"the file is not valid JSON: {error}", "bad_record"
