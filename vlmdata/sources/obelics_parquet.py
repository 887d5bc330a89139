"""OBELICS's Parquet files and others with the same columns: documents whose images are addresses."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.parameters import Doc
from vlmdata.readers.column_types import IMAGES, PARAGRAPHS, check_parquet
from vlmdata.readers.documents import metadata_fields, parsed, positions
from vlmdata.readers.find_files import File, find
from vlmdata.readers.lists import checked_files, named_pieces, parquet_file
from vlmdata.readers.open_file import UNREADABLE, raw_file
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, document, reject, tables
from vlmdata.readers.source_images import inline
from vlmdata.readers.strings import clean
from vlmdata.step import RecipeError, Source
from vlmdata.untrusted import one_line

GROUPS_IN_PIECE = 8  # row groups
CONTENTS = {"images": IMAGES, "texts": PARAGRAPHS}  # the columns that a file needs


@dataclass(frozen=True, kw_only=True)
class ObelicsParquet(Source):
    """Yield one row for each document. Each paragraph is one position. Images keep their address for `download`.

    The columns `images` and `texts` hold aligned lists. The optional column `metadata` holds a JSON list that is aligned with
    them. The optional column `general_metadata` holds a JSON object. Images may also be structs with `bytes`, as `datasets`
    writes them.
    """

    id: ClassVar = "vlmdata.sources.obelics_parquet"
    example: ClassVar = "source: {type: obelics_parquet, path: obelics/*.parquet}"
    gives: ClassVar = "documents"
    shuffled: ClassVar[bool] = False

    path: Annotated[str | list[str], Doc("OBELICS's Parquet files, or folders or globs of them.")]

    def check(self) -> None:
        for path in checked_files(self.files(), lambda path: "parquet"):
            with _parquet(path) as opened:
                _check_columns(path, opened)

    def files(self) -> list[File]:
        return find(self.path, (".parquet",))

    def pieces(self) -> list[dict[str, Any]]:
        found = []
        for piece in named_pieces(self.files()):
            with _parquet(piece["path"]) as opened:
                _check_columns(piece["path"], opened)  # again, because `check` reads only some files
                groups = opened.num_row_groups if opened is not None and opened.metadata.num_rows else 0
            starts = range(0, groups, GROUPS_IN_PIECE)
            found += [{**piece, "groups": [*range(i, min(i + GROUPS_IN_PIECE, groups))]} for i in starts]
        return found

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        name = piece["name"] if "name" in piece else os.path.basename(piece["path"])  # plans of earlier versions have no name
        return tables(self._rows(piece["path"], name, piece["groups"]))

    def _rows(self, path: str, name: str, groups: list[int]) -> Iterator[dict[str, Any]]:
        with _parquet(path) as file:
            assert file is not None, "a file without a row has no pieces"
            names = [n for n in ("images", "texts", "metadata", "general_metadata", "url") if n in file.schema_arrow.names]
            number = sum(file.metadata.row_group(group).num_rows for group in range(groups[0]))
            for batch in file.iter_batches(256, row_groups=groups, columns=names):
                for number, record in enumerate(batch.to_pylist(), number + 1):  # noqa: B020  counts on across batches
                    yield _row(record, name, number)


def _check_columns(path: str, opened: pq.ParquetFile | None) -> None:
    """Raise RecipeError if the columns of a file are missing or have wrong types. A file without rows may lack columns."""
    if opened is None:
        return
    names = opened.schema_arrow.names
    missing = [f"no column '{name}'" for name in CONTENTS if name not in names]
    if missing and opened.metadata.num_rows:
        raise RecipeError(f"{path}: there is {' and '.join(missing)}. The columns are {', '.join(names)}")
    check_parquet(path, opened, CONTENTS)


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile | None]:
    """Open a Parquet file, or yield None if it has no byte. Raises RecipeError with the path if the file is damaged."""
    try:
        with raw_file(path) as opened:
            yield parquet_file(opened, path)
    except UNREADABLE as error:
        raise RecipeError(f"{path} cannot be read as Parquet: {one_line(error)}") from None


def _row(record: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    texts, images = _list(record["texts"]), _list(record["images"])
    if texts is None or images is None:
        wrong = "texts" if texts is None else "images"
        return bad_record(name, f"the column `{wrong}` of row {number} does not hold a list", id=f"{name}\nrow {number}")
    metadata = parsed(record.get("metadata"), list)
    about = parsed(record.get("general_metadata"), dict)
    pages = (one["document_url"] for one in metadata if isinstance(one, dict) and "document_url" in one)
    url = about.get("url") or record.get("url") or next(pages, None)
    fields = {"url": url and clean(str(url)), "extra": clean(json_object({k: v for k, v in about.items() if k != "url"}))}

    def image_of(place: int, entry: Any) -> dict[str, Any] | None:
        own = metadata[place] if place < len(metadata) else None
        if isinstance(entry, dict):
            if not isinstance(entry.get("bytes"), bytes) or not entry["bytes"]:
                return None
            url = own.get("src") if isinstance(own, dict) else None
            return {"url": clean(url) if isinstance(url, str) else None, **metadata_fields(own), **inline(entry["bytes"])}
        return {"url": clean(str(entry)), **metadata_fields(own)}

    row = document(positions(texts, images, image_of), **fields)
    return row if row["images"] else reject(row, "empty_document")


def _list(value: Any) -> list[Any] | None:
    """Return a value that is a list or the JSON text of a list. Return [] for null, and None for any other value."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return [] if value is None else value if isinstance(value, list) else None
