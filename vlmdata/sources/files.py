"""A folder of images with their texts beside them, or with a list that names them."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from vlmdata.intake import lists
from vlmdata.intake.captions import caption_column
from vlmdata.intake.find import File, find, is_remote
from vlmdata.intake.opened import raw_file
from vlmdata.intake.pairs import bad_records, json_object
from vlmdata.intake.pictures import ENDINGS, image_named, in_place
from vlmdata.intake.rows import pair, reject, tables
from vlmdata.intake.strings import clean, from_python
from vlmdata.intake.tars import names_within
from vlmdata.step import RecipeError, Source

SLICE = 1000  # images of one part


@dataclass(frozen=True, kw_only=True)
class Files(Source):
    """Images of a folder at any depth, or of a glob. Beside `a/b.jpg` lie `a/b.txt` with its caption or `a/b.json`.

    With `table`, a list in any format of `url_list` (a Hugging Face image folder's metadata.csv) names the files and holds
    their captions. Images stay where they are; one that is not there is dropped as `no_file`.
    """

    path: str | list[str]
    table: str = ""  # path of the table, relative to the folder `path`
    file: str = "file_name"  # its column of file names, relative to the table's own folder
    caption: str | list[str] = "caption"  # its columns of captions; without a table the fields of the .json
    extra: Literal["all"] | list[str] = "all"  # its other columns, or fields of the .json, that go into the sample's JSON

    @property
    def shuffled(self) -> bool:  # type: ignore[override]
        """With a list rows are planned like addresses; a folder is read slice by slice."""
        return bool(self.table)

    def check(self) -> None:
        if not self.table:
            self._files()
            return
        for file in self._lists():
            lists.check_columns(file.path, lists.column_names(file.path, lists.Layout()), [self.file, *self._columns()])

    def files(self) -> list[File]:
        return self._lists() if self.table else self._files()

    def pieces(self) -> list[dict[str, Any]]:
        if self.table:
            return [{"path": file.path} for file in self._lists()]
        return [{"start": start} for start in range(0, len(self._files()), SLICE)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        if self.table:
            yield from self._listed(piece["path"])
            return
        files = self._files()
        named = list(zip(files, names_within(files), strict=True))[piece["start"] : piece["start"] + SLICE]
        yield from tables(self._beside(file, name) for file, name in named)

    def _files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def _lists(self) -> list[File]:
        if not isinstance(self.path, str):
            raise RecipeError("table: give one folder as `path`, in which the table lies")
        return find(f"{self.path.rstrip('/')}/{self.table}", lists.ENDINGS)

    def _columns(self) -> list[str]:
        return [name for name in ([self.caption] if isinstance(self.caption, str) else self.caption) if name]

    def _beside(self, file: File, name: str) -> dict[str, Any]:
        """Return the row of an image with the texts beside it."""
        data = _bytes(file.path) or b""
        image = in_place(file.path, 0, data)
        base = os.path.splitext(file.path)[0]
        captions, facts = [], {}
        if (text := _bytes(f"{base}.txt")) is not None:
            captions.append(text.decode("utf-8", "replace").strip())
        if (text := _bytes(f"{base}.json")) is not None:
            try:
                facts = json.loads(text)
            except (ValueError, RecursionError):
                return reject({"id": name, "images": [image]}, "bad_record")
        if not isinstance(facts, Mapping):
            facts = {"json": facts}
        for field in self._columns():
            value = facts.get(field)
            captions += [clean(v) for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
        if isinstance(facts.get("url"), str):  # as our own export and img2dataset's files say where it came from
            image["url"] = clean(facts["url"])
        if facts.get("scores"):
            facts = {**facts, "earlier_scores": facts["scores"]}
        rest = {k: v for k, v in facts.items() if k not in self._columns() and (self.extra == "all" or k in self.extra)}
        return pair(image, captions, id=f"{name}\n{captions}", extra=clean(json_object({**rest, "file_name": name})))

    def _listed(self, path: str) -> Iterator[pa.Table]:
        folder = path.rpartition("/")[0]
        extra = self.extra if isinstance(self.extra, str) else {name: name for name in self.extra}
        for chunk in lists.chunks(File(path, 0), lists.Layout(), [self.file, *self._columns()], extra):
            column = chunk.columns[self.file]
            names = from_python(column)[0].to_pylist() if isinstance(column, list) else column.cast(pa.string()).to_pylist()
            texts, others, bad = caption_column([chunk.columns[n] for n in self._columns()] or [[None] * len(names)])
            carried = chunk.extra.to_pylist() if chunk.extra is not None else [None] * len(names)
            rest = others.to_pylist() if others is not None else [None] * len(names)
            wrong = (bad | chunk.bad_encoding).tolist()
            yield from tables(map(_row, names, texts.to_pylist(), rest, carried, wrong, [folder] * len(names)))
            if chunk.bad_records:
                yield bad_records(chunk.bad_records)


def _row(name: str | None, text: str, others: Any, carried: str | None, wrong: bool, folder: str) -> dict[str, Any]:
    image = image_named(name, folder)
    reason = "bad_encoding" if wrong else None
    extra = json_object({**json.loads(carried or "{}"), "file_name": name})
    return pair(image, [text, *(others or [])], id=f"{name}\n{text}\n{others}", extra=extra, reason=reason)


def _bytes(path: str) -> bytes | None:
    """Return a whole small file, or None where there is none."""
    if not is_remote(path) and not os.path.isfile(path):
        return None
    try:
        with raw_file(path) as file:
            return file.read()
    except OSError:
        return None
