"""A list of image addresses with captions: Parquet, CSV, TSV, JSON, JSON lines or plain text, compressed or not."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.parameters import Doc
from vlmdata.readers import lists
from vlmdata.readers.base64_images import image_in
from vlmdata.readers.captions import caption_column, named_columns, without_captions
from vlmdata.readers.column_types import ADDRESS, BOXES, CAPTION, HASH, IMAGE, LABELS, SIZE, Content
from vlmdata.readers.dotted_paths import NO_TEXT, resolve
from vlmdata.readers.find_files import File, find
from vlmdata.readers.lists import Chunk, ListFormat
from vlmdata.readers.pair_rows import json_object, pairs
from vlmdata.readers.plain_rows import bad_records, captioned, pair, tables, with_place
from vlmdata.readers.stated_values import box_columns, hash_column, whole_numbers
from vlmdata.readers.strings import blank_as_null, check_encoding, clean, decode, from_python
from vlmdata.row import ROW
from vlmdata.step import RecipeError, Source
from vlmdata.untrusted import errors_as

IMAGES = 100  # rows with inline images that are read at a time


@dataclass(frozen=True, kw_only=True)
class UrlList(Source):
    """Yield one row for each image address with its captions, from files, folders or globs, local or on any fsspec store.

    An empty caption becomes an empty text. Blank lines are skipped. Reasons of dropped rows: `no_address` (the row has no
    address), `bad_encoding` (its bytes cannot be decoded), `bad_record` (the line cannot be parsed).
    """

    id: ClassVar = "vlmdata.sources.url_list"
    example: ClassVar = "source: {type: url_list, path: links/*.parquet, url: URL, caption: [TEXT, ALT]}"

    path: Annotated[str | list[str], Doc("File, folder or glob, or several of these, local or on any store that fsspec knows.")]
    format: Annotated[
        lists.Format, Doc("Format of the files. auto: by the file's name. A text file (txt) has one address per line.")
    ] = "auto"
    url: Annotated[str, Doc("Column of addresses.")] = "url"
    image: Annotated[str, Doc("Column of images as base64 or bytes. The column `url`, if any, is then their origin.")] = ""
    caption: Annotated[
        str | list[str], Doc("Columns of captions. Further columns and list items are alternatives. Empty: none.")
    ] = "caption"
    extra: Annotated[
        Literal["all"] | list[str] | dict[str, str],
        Doc("Columns to keep in the sample's JSON, or a mapping of new name to column."),
    ] = "all"
    boxes: Annotated[str, Doc("Column of [[x0, y0, x1, y1], ...], such as DataComp's face_bboxes. JSON text in CSV.")] = ""
    boxes_are: Annotated[
        Literal["pixels", "shares"], Doc("Unit of the boxes. shares: fractions of the columns `width` and `height`.")
    ] = "pixels"
    box_labels: Annotated[
        str, Doc("Column of [text or null, ...]: what is in each of the `boxes`. JSON text in CSV. Empty: not known.")
    ] = ""
    width: Annotated[
        str, Doc("Column of the stated width, by which `image_size` can reject an image before it is fetched.")
    ] = ""
    height: Annotated[str, Doc("Column of the stated height.")] = ""
    hash: Annotated[str, Doc("Column of the image file's MD5 or SHA-256, which `download: {verify: sha256}` checks.")] = ""
    encoding: Annotated[str, Doc("Encoding of text formats. UTF-16 with a byte order mark is detected.")] = "utf-8"
    columns: Annotated[
        list[str] | None, Doc("Names for the columns of CSV and TSV without a header. null: the first line is the header.")
    ] = None
    delimiter: Annotated[str, Doc("Character between fields. Empty: comma in CSV, tab in TSV.")] = ""
    quoted: Annotated[bool | None, Doc('Whether "..." quotes a field. null: in CSV yes, in TSV no.')] = None

    @property
    def shuffled(self) -> bool:  # type: ignore[override]
        """Whether partitions follow the order of the rows' keys. False for inline images, which are read file by file."""
        return not self.image

    @property
    def by_address(self) -> bool:  # type: ignore[override]
        """Whether the images must be fetched from their addresses."""
        return not self.image

    @property
    def states_hashes(self) -> bool:  # type: ignore[override]
        """Whether a column holds hashes of the image bytes."""
        return bool(self.hash)

    def check(self) -> None:
        check_encoding(self.encoding)
        if len(self.delimiter) > 1:
            raise RecipeError(f"delimiter must be one character, not {self.delimiter!r}")
        if self.boxes_are == "shares" and not (self.width and self.height):
            raise RecipeError("`boxes_are: shares` needs the columns `width` and `height` to turn shares into pixels")
        if self.box_labels and not self.boxes:
            raise RecipeError("`box_labels` names what is in the `boxes`. Set `boxes` to their column too")
        if self.image and (self.boxes or self.width or self.height or self.hash):
            raise RecipeError("`boxes`, `width`, `height` and `hash` cannot be used with `image`. Remove them or `image`")
        layout = self._layout()
        for path in lists.checked_files(self.files(), lambda path: lists.format_of(path, layout)):
            if self._captions() and (texts := _texts_apart(path)):
                raise RecipeError(f"{path} has its captions in {texts}. Join both files as the cookbook does for Chinese-CLIP")
            if lists.format_of(path, layout) != "txt":
                names = [*self._wanted(path), *self._carried()]
                lists.check_file(path, layout, names, self._contents(), keeps_all=self.extra == "all")

    def warning(self) -> str | None:
        """Return a warning if none of the first rows has a caption."""
        files = [file for file in self.files()[: lists.CHECKED_FILES] if lists.format_of(file.path, self._layout()) != "txt"]
        return without_captions(files, self._layout(), self._captions())

    def files(self) -> list[File]:
        return find(self.path, lists.ENDINGS)

    def carries(self) -> Sequence[str]:
        if not isinstance(self.extra, str):
            return list(self.extra)
        files = [file for file in self.files() if lists.format_of(file.path, self._layout()) != "txt"]
        return lists.first_columns(files, self._layout(), self._wanted(files[0].path)) if files else ()

    def pieces(self) -> list[dict[str, Any]]:
        return lists.named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        file = File(piece["path"], 0)
        is_text = lists.format_of(file.path, self._layout()) == "txt"
        wanted = [lists.LINE] if is_text else self._wanted(file.path)
        extra: Mapping[str, str] | Literal["all"] = {}
        if not is_text:
            extra = self.extra if isinstance(self.extra, str | dict) else {name: name for name in self.extra}
        found = lists.chunks(file, self._layout(), wanted, extra, rows=IMAGES if self.image else lists.ROWS)
        for chunk, where in lists.with_places(piece["name"], found):
            if len(chunk.bad_encoding):
                is_inline = self.image and not is_text
                yield from self._with_images(chunk, where) if is_inline else [self._rows(chunk, where, is_text)]
            if chunk.bad_records:
                yield bad_records(piece["name"], chunk.bad_records)

    def _layout(self) -> ListFormat:
        return ListFormat(self.format, self.encoding, self.columns or (), self.delimiter, self.quoted)

    def _captions(self) -> list[str]:
        return named_columns(self.caption)

    def _wanted(self, path: str) -> list[str]:
        if self.image:
            known = lists.column_names(path, self._layout()) or []
            return [self.image, *self._captions(), *([self.url] if resolve(self.url, known) else [])]
        return list(dict.fromkeys(name for name in (self.url, *self._captions(), *self._stated()) if name))

    def _stated(self) -> tuple[str, ...]:
        return self.boxes, self.box_labels, self.width, self.height, self.hash

    def _contents(self) -> dict[str, Content]:
        """Return what each column must hold. A column with two uses must fit the last one here."""
        sizes = {name: SIZE for name in (self.width, self.height) if name}
        others = {self.boxes: BOXES, self.box_labels: LABELS, self.hash: HASH, self.image: IMAGE}
        found = {**dict.fromkeys(self._captions(), CAPTION), **sizes, **others, self.url: ADDRESS}
        return {name: content for name, content in found.items() if name}

    def _carried(self) -> list[str]:
        if isinstance(self.extra, str):
            return []
        return list(self.extra.values() if isinstance(self.extra, dict) else self.extra)

    def _with_images(self, chunk: Chunk, where: Callable[[int], str]) -> Iterator[pa.Table]:
        """Yield tables with the rows of a chunk of inline images."""
        cells = chunk.columns[self.image]
        cells = cells if isinstance(cells, list) else cells.to_pylist()
        texts, others, bad = caption_column(
            [chunk.columns[name] for name in self._captions()] or [[None] * len(cells)], self.encoding
        )
        nothing = [None] * len(cells)
        urls = (
            _strings(chunk.columns[self.url], self.encoding, self.url, where)[0].to_pylist()
            if self.url in chunk.columns
            else nothing
        )
        alternatives = others.to_pylist() if others is not None else nothing
        extra = chunk.extra.to_pylist() if chunk.extra is not None else nothing
        wrong = (bad | chunk.bad_encoding).tolist()
        rows = map(_pair, cells, urls, texts.to_pylist(), alternatives, extra, wrong)
        yield from tables(with_place(row, where(number)) for number, row in enumerate(rows))

    def _rows(self, chunk: Chunk, where: Callable[[int], str], is_text: bool) -> pa.Table:
        url, undecoded = _strings(chunk.columns[lists.LINE if is_text else self.url], self.encoding, self.url, where)
        url = blank_as_null(url)
        image: dict[str, pa.Array] = {"url": url}
        for name, column in (("original_width", self.width), ("original_height", self.height)):
            if column and not is_text:
                image[name] = whole_numbers(chunk.columns[column])
        extra = chunk.extra
        if self.boxes and not is_text:
            sizes = (image["original_width"], image["original_height"]) if self.boxes_are == "shares" else None
            labels = _decoded(chunk.columns[self.box_labels], self.encoding) if self.box_labels else None
            image["boxes"], image["box_labels"], unfit = box_columns(chunk.columns[self.boxes], labels, sizes)
            if unfit and self.extra == "all":
                extra = _with_column(extra, self.box_labels, unfit, len(url))
        captions = [] if is_text else [chunk.columns[name] for name in self._captions()]
        text = alternatives = None
        bad = undecoded | chunk.bad_encoding
        if captions:
            with errors_as(lambda error: _placed(error, where)):
                text, alternatives, wrong = caption_column(captions, self.encoding)
            bad |= wrong
        missing = pc.is_null(url).to_pylist()
        reason = ["bad_encoding" if b else "no_address" if m else None for b, m in zip(bad, missing, strict=True)]
        rows = pairs(image, text, alternatives=alternatives, extra=extra, reason=reason)
        if any(reason):
            shown = [where(number) if one else None for number, one in enumerate(reason)]
            rows = rows.append_column("place", pa.array(shown, pa.string()))
        if self.hash and not is_text:
            places = [[one, None] if captions else [one] for one in hash_column(chunk.columns[self.hash]).to_pylist()]
            rows = rows.append_column("stated_hashes", pa.array(places, ROW.field("stated_hashes").type))
        return rows


def _decoded(column: Any, encoding: str) -> Any:
    """Return a column of labels. If it holds bytes, as in CSV, they become text. Wrong bytes become U+FFFD."""
    if isinstance(column, list):
        return [None if value == NO_TEXT else value for value in column]
    return decode(column, encoding)[0] if pa.types.is_binary(column.type) else column


def _with_column(extra: pa.Array | None, name: str, values: Mapping[int, Any], count: int) -> pa.Array:
    """Return the source's columns of `count` rows, as JSON objects, with another column in the rows that `values` numbers."""
    found = [None] * count if extra is None else extra.to_pylist()
    for row, value in values.items():
        found[row] = clean(json_object({**json.loads(found[row] or "{}"), name: value}))
    return pa.array(found, pa.string())


def _pair(cell: Any, url: str | None, text: str, others: list[str] | None, extra: str | None, wrong: bool) -> dict[str, Any]:
    captions, reason = [text, *(others or [])], "bad_encoding" if wrong else None
    if isinstance(cell, list) and len(cell) > 1:
        return captioned([image_in(one) for one in cell], captions, url=url or None, extra=extra, reason=reason)
    return pair({**image_in(cell), "url": url or None}, captions, extra=extra, reason=reason)


def _texts_apart(path: str) -> str | None:
    """Return the path of the file that holds the captions of the local file `path`, or None if there is none.

    A file `x_imgs.tsv` holds only images and their numbers. Its captions are in `x_texts.jsonl` in the same folder.
    """
    start, found, _ = path.partition("_imgs.tsv")
    texts = f"{start}_texts.jsonl"
    return texts if found and os.path.isfile(texts) else None


def _placed(error: Exception, where: Callable[[int], str]) -> Exception:
    """Return a RecipeError with the place of the chunk's first row, and any other error unchanged."""
    return RecipeError(f"{where(0)}: {error}") if isinstance(error, RecipeError) else error


def _strings(column: Any, encoding: str, name: str, where: Callable[[int], str]) -> tuple[pa.Array, np.ndarray]:
    if isinstance(column, list):
        return from_python(column)
    try:
        return decode(column, encoding)
    except TypeError as error:
        raise RecipeError(f"{where(0)}: the column '{name}' cannot be read: {error}") from None
