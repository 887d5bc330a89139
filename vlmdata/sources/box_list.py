"""Lists of images with boxes and what is in them: referring expressions or detections, in JSON lines, JSON, Parquet or CSV."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers import lists
from vlmdata.readers.box_forms import BoxForm, Sized, wrong_form
from vlmdata.readers.boxed_images import with_boxes
from vlmdata.readers.column_types import SIZE, Content
from vlmdata.readers.dotted_paths import NO_TEXT
from vlmdata.readers.find_files import File, find
from vlmdata.readers.lists import Chunk, ListFormat
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_records, pair, tables, with_place
from vlmdata.readers.source_images import image_named, name_in_source
from vlmdata.readers.stated_values import box, whole_numbers
from vlmdata.readers.strings import clean, is_blank
from vlmdata.step import RecipeError, Source

ROWS = 100  # records that are read at a time, because they may hold images


@dataclass(frozen=True, kw_only=True)
class BoxList(Source):
    """Yield one row for each record of a list: its image, with its boxes and what is in each.

    A record has one box, and one phrase or several, or a list of boxes with a list of as many phrases. Each phrase of a single
    box gives an entry with this box. Rows have an empty caption. Images are addresses, bytes or files in `images`. Reasons of
    dropped rows: `no_boxes`, `labels_do_not_fit`, `bad_encoding`, `bad_record`, and those of images.
    """

    id: ClassVar = "vlmdata.sources.box_list"
    example: ClassVar = "source: {type: box_list, path: refs.jsonl, box_form: xywh, phrase: expression, images: photos}"
    images_in: ClassVar = "images"

    path: Annotated[str | list[str], Doc("File, folder or glob, or several of these. They are not text files (.txt).")]
    box_form: Annotated[
        BoxForm,
        Doc("What the four numbers are. Pixels: xyxy (corners), xywh (COCO). xyxy_normalised: 0 to 1; xyxy_1000: 0 to 1000."),
    ]
    image: Annotated[str, Doc("Column of the image: an address, the name of a file, bytes, or a struct with `bytes`.")] = (
        "image"
    )
    box: Annotated[str, Doc("Column of the box, or of the list of boxes. JSON text in CSV.")] = "bbox"
    phrase: Annotated[
        str,
        Doc("Column of the phrase, or of the list of phrases: texts, or objects with `sent`, `raw` or `text`. Empty: none."),
    ] = "phrase"
    images: Annotated[str, Doc("Folder of the images that the list names. Empty: the list's folder.")] = ""
    width: Annotated[
        str, Doc("Column of the image's stated width, by which wrong boxes are noticed before images are fetched.")
    ] = ""
    height: Annotated[str, Doc("Column of the image's stated height.")] = ""
    format: Annotated[lists.Format, Doc("Format of the files. auto: by the file's name.")] = "auto"

    def check(self) -> None:
        if bool(self.width) != bool(self.height):
            raise RecipeError("`width` and `height` belong together. Set both or none")
        contents: dict[str, Content] = {name: SIZE for name in (self.width, self.height) if name}
        for path in lists.checked_files(self.files(), lambda path: lists.format_of(path, self._layout())):
            if lists.format_of(path, self._layout()) == "txt":
                raise RecipeError(
                    f"{path} is a text file, which has no boxes. Set source.path to JSON lines, JSON, Parquet or CSV"
                )
            lists.check_file(path, self._layout(), self._wanted(), contents)
        if self.images:
            find(self.images, ("",), parameter="source.images")
        found = wrong_form(self._first_boxes(), self.box_form)
        if found and found[1]:
            raise RecipeError(f"{self.files()[0].path}: {found[0]}. Set source.box_form: {' or '.join(found[1])}")

    def warning(self) -> str | None:
        """Return a warning if many of the first boxes fit their images in no form. If they fit in another, `check` stops."""
        found = wrong_form(self._first_boxes(), self.box_form)
        return f"source: {found[0]}, and they fit in no other form either. Look at some of them" if found else None

    def files(self) -> list[File]:
        return find(self.path, [ending for ending in lists.ENDINGS if not ending.startswith(".txt")])

    def carries(self) -> Sequence[str]:
        return lists.first_columns(self.files(), self._layout(), self._wanted())

    def pieces(self) -> list[dict[str, Any]]:
        return lists.named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the rows of `read`, and count the boxes that are left out, by reason."""
        found = lists.chunks(File(piece["path"], 0), self._layout(), self._wanted(), "all", rows=ROWS)
        for chunk, where in lists.with_places(piece["name"], found):
            yield from tables(self._rows(chunk, where, os.path.dirname(piece["path"]), others))
            if chunk.bad_records:
                yield bad_records(piece["name"], chunk.bad_records)

    def _layout(self) -> ListFormat:
        return ListFormat(self.format)

    def _wanted(self) -> list[str]:
        return list(dict.fromkeys(name for name in (self.image, self.box, self.phrase, self.width, self.height) if name))

    def _rows(self, chunk: Chunk, where: Callable[[int], str], folder: str, others: Counter[str]) -> Iterator[dict[str, Any]]:
        extra = chunk.extra.to_pylist() if chunk.extra is not None else [None] * len(chunk.bad_encoding)
        for number, (record, carried) in enumerate(zip(_records(chunk), extra, strict=True)):
            row = self._row(record, carried, folder, others)
            if chunk.bad_encoding[number]:
                row |= {"drop": "source", "reason": "bad_encoding"}
            yield with_place(row, where(number), name_in_source(record[self.image]))

    def _row(self, record: Mapping[str, Any], extra: str | None, folder: str, others: Counter[str]) -> dict[str, Any]:
        image = image_named(record[self.image], self.images or folder)
        if self.width and not image.get("width"):
            sizes = whole_numbers([record[self.width], record[self.height]]).to_pylist()
            image |= {"original_width": sizes[0], "original_height": sizes[1]} if all(sizes) else {}
        boxes = _boxes_in(record[self.box])
        phrases = _phrases_in(record[self.phrase]) if self.phrase else []
        if boxes and len(boxes) == 1 and len(phrases) > 1:
            boxes *= len(phrases)
        reason = None if not phrases or not boxes or len(phrases) == len(boxes) else "labels_do_not_fit"
        labels = phrases if len(phrases) == len(boxes) else [None] * len(boxes)
        image = with_boxes(image, boxes, labels, self.box_form, others)
        if not image.get("boxes") and not image.get("original_boxes"):
            reason = "no_boxes"
        known = record[self.image] if isinstance(record[self.image], str) else image.get("sha256") or image.get("url")
        identity = clean(json_object({"image": known, "boxes": boxes, "labels": labels}))
        return pair(image, [], id=identity, extra=extra, reason=image.get("reason") or reason)

    def _first_boxes(self) -> list[Sized]:
        """Return the boxes of the first 100 records of the first file, with the sizes of their images."""
        found: list[Sized] = []
        file = self.files()[0]
        for chunk in itertools.islice(lists.chunks(file, self._layout(), self._wanted(), {}, rows=ROWS), 1):
            for record in itertools.islice(_records(chunk), ROWS):
                boxes = [numbers for one in _boxes_in(record[self.box]) if (numbers := box(one))]
                image = image_named(record[self.image], self.images or os.path.dirname(file.path)) if boxes else {}
                sizes: list[Any] = [image.get("width"), image.get("height")]
                if self.width and not all(sizes):
                    sizes = whole_numbers([record[self.width], record[self.height]]).to_pylist()
                found += [Sized(numbers, *(size or None for size in sizes)) for numbers in boxes]
        return found


def _records(chunk: Chunk) -> Iterator[dict[str, Any]]:
    """Yield the wanted columns of a chunk, record by record. A value that cannot be reached by its path is None."""
    columns = {name: values if isinstance(values, list) else values.to_pylist() for name, values in chunk.columns.items()}
    for row in zip(*columns.values(), strict=True):
        yield {
            name: None if isinstance(value, bytes) and value == NO_TEXT else value
            for name, value in zip(columns, row, strict=True)
        }


def _value(cell: Any) -> Any:
    """Return the value of a cell. A text that begins with a bracket is read as JSON."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    if isinstance(text, str) and text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _boxes_in(cell: Any) -> list[Any]:
    """Return the boxes of a cell: a list of four numbers is one box, and a list of lists holds several."""
    value = _value(cell)
    if not isinstance(value, list) or not value:
        return []
    return list(value) if any(isinstance(one, list | tuple | None) for one in value) else [value]


def _phrases_in(cell: Any) -> list[str | None]:
    """Return the phrases of a cell: a text, a list of texts, or a list of objects with a text. Repeated ones of a list stay."""
    value = _value(cell)
    values = value if isinstance(value, list) else [value]
    found = [_phrase(one) for one in values]
    return found if any(found) else []


def _phrase(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("sent", "raw", "text") if isinstance(value.get(name), str)), None)
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) and not is_blank(value) else None
