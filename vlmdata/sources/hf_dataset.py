"""Hugging Face datasets: from the Hub, streamed or downloaded, or from local folders and files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers.captions import HEAD, named_columns, none_of, without_captions
from vlmdata.readers.column_types import CAPTION, FILE_NAME
from vlmdata.readers.dotted_paths import NO_TEXT, item_type, names_in, value_at
from vlmdata.readers.exported_rows import are_exported, sample_in
from vlmdata.readers.find_files import File, find
from vlmdata.readers.hub import Opened, check_schemas, error_summary, is_local, open_dataset
from vlmdata.readers.image_tables import count_rows, named_rows
from vlmdata.readers.lists import ListFormat, check_columns, check_file, column_names
from vlmdata.readers.nested import flat, holds_bytes, plain_rows, texts_in
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, captioned, tables, with_place
from vlmdata.readers.source_images import in_text, keep_addresses, name_in_source
from vlmdata.readers.strings import clean, is_blank
from vlmdata.readers.tar_samples import BadSample
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError, Source
from vlmdata.untrusted import errors_as

SLICE = 1000  # rows in a piece
BATCH = 100  # rows converted to Python values at a time


@dataclass(frozen=True, kw_only=True)
class HfDataset(Source):
    """Yield the rows of a dataset with inline images (an Image feature or bytes) or image addresses.

    `path` is a name on the Hub, a folder from `save_to_disk`, a folder or glob of Parquet or Arrow files, an image folder,
    or zip archives of images. Image bytes are taken as they are and not re-encoded. A column name with a dot means a field
    inside a struct (`caption.en`). A row with one image is a caption pair, and a row with several images is a document. A row
    without its image is dropped as `no_image` or `no_address`.

    A dataset that vlmdata exported as `parquet` or `hf` is read without loss, as `webdataset` reads the dataset's tars, unless
    the recipe names columns.
    """

    id: ClassVar = "vlmdata.sources.hf_dataset"
    example: ClassVar = (
        "source: {type: hf_dataset, path: name/on-the-hub, split: train, image: image, caption: [caption], streaming: true}"
    )
    packages: ClassVar = (
        "datasets",
        "huggingface_hub",
    )

    path: Annotated[
        str,
        Doc(
            "Name on the Hub, a folder from `save_to_disk`, a folder or glob of Parquet or Arrow files, an image "
            "folder, or zips of images."
        ),
    ]
    name: Annotated[str, Doc("Configuration, if the dataset has several.")] = ""
    split: Annotated[str, Doc("Split to read.")] = "train"
    revision: Annotated[str, Doc("Branch, tag or commit on the Hub. Only a commit guarantees the same rows.")] = ""
    streaming: Annotated[
        bool, Doc("Whether to read shard by shard in place. Otherwise the library downloads and converts the dataset once.")
    ] = False
    image: Annotated[str, Doc("Column of inline images, or of file names in the dataset's folder.")] = "image"
    url: Annotated[
        str, Doc("Column of addresses to fetch, or of the origins of inline images. Empty: the column `url`, if any.")
    ] = ""
    caption: Annotated[str | list[str], Doc("Caption columns. A column of lists holds alternatives. Empty: none.")] = "caption"
    extra: Annotated[
        Literal["all"] | list[str], Doc("Other columns to keep in the sample's JSON. Bytes and images are left out.")
    ] = "all"

    @property
    def shuffled(self) -> bool:  # type: ignore[override]
        """Whether rows are shuffled. True for image addresses. False for inline images, which are read slice by slice."""
        return bool(self.url) and not self._has_inline()

    def check(self) -> None:
        extra = [] if isinstance(self.extra, str) else self.extra
        opened = self._opened()
        for table in opened.tables:
            file = self._file_column(table)
            contents = {**dict.fromkeys(self._captions(), CAPTION), file: FILE_NAME}
            check_file(table, ListFormat(), [file, *self._captions(), *extra], contents)
        schema = self._schema(opened)
        if schema is not None and self.streaming and not self.name:
            check_schemas(self.path, schema)
        if schema is None or self._is_exported(schema.names):  # a stream has a schema only if the dataset states one
            return
        check_columns(self.path, names_in(schema), [self.url or self.image, *self._captions(), *extra])
        for name in self._captions():
            self._check_caption(name, _kind(schema, name))
        if not self.url and not _is_image(kind := _kind(schema, self.image)):
            raise RecipeError(f"{self.path}: the column '{self.image}' must hold images, file names or addresses, not {kind}")

    def warning(self) -> str | None:
        """Return a warning if none of the first rows of a local dataset has a caption."""
        opened, names = self._opened(), self._captions()
        if opened.tables:
            return without_captions([File(table, 0) for table in opened.tables], ListFormat(), names)
        schema = self._schema(opened)
        if self.streaming or opened.data is None or not names or (schema is not None and self._is_exported(schema.names)):
            return None
        rows = list(plain_rows(opened.data[:HEAD]))
        said = [texts_in(value_at(row, name, NO_TEXT)) for row, _ in rows for name in names]
        return (
            None
            if any(fault or not all(map(is_blank, texts)) for texts, fault in said)
            else none_of(self.path, names, len(rows))
        )

    def _check_caption(self, name: str, kind: pa.DataType) -> None:
        if pa.types.is_nested(kind):
            raise RecipeError(f"{self.path}: the column '{name}' must hold texts or labels, not {kind}")

    def files(self) -> Sequence[tuple[str, int]]:
        if is_local(self.path):
            return find(self.path, ("",))
        data = self._opened().data
        return [(f"{self.path}/{self.name}/{self.split}@{self.revision}", 0 if self.streaming else len(data))]

    def pieces(self) -> list[dict[str, Any]]:
        data, named = self._opened().data, self._opened().tables
        if named:
            counts = {table: count_rows(table, self._file_column(table)) for table in named}
            starts = [(table, start) for table in named for start in range(0, counts[table] or 1, SLICE)]
            return [{"table": table, "start": start, "stop": start + SLICE} for table, start in starts]
        if data is None:
            return []
        if self.streaming:
            return [{"shard": number, "shards": data.num_shards} for number in range(data.num_shards)]
        return [{"start": start, "stop": min(start + SLICE, len(data))} for start in range(0, len(data), SLICE)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        if "table" in piece:
            table, window = piece["table"], range(piece["start"], piece["stop"])
            table_name, file = os.path.basename(table), self._file_column(table)
            yield from named_rows(table, table_name, file, self._captions(), extra=self.extra, window=window)
            return
        meant = _features_with_meaning(self._opened().data)
        numbered = enumerate((row for batch in self._batches(piece) for row in plain_rows(batch)), piece.get("start", 0) + 1)
        within = f"{self.split}, shard {piece['shard']}" if "shard" in piece else self.split
        yield from tables(self._row(*row, meant, f"{within}, row {number}") for number, row in numbered)

    def _batches(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        data = self._opened().data
        with errors_as(lambda error: RecipeError(f"{self.path} cannot be read as a dataset: {error_summary(error)}")):
            if self.streaming:
                yield from data.shard(num_shards=piece["shards"], index=piece["shard"]).iter(batch_size=BATCH)
            else:
                for start in range(piece["start"], piece["stop"], BATCH):
                    yield data[start : min(start + BATCH, piece["stop"])]

    def _captions(self) -> list[str]:
        return named_columns(self.caption)

    def _opened(self) -> Opened:
        used = (self.image, self.url, *self._captions())
        texts = tuple(sorted({part for name in used if name for part in (name, name.partition(".")[0])}))
        return open_dataset(self.path, self.name, self.split, self.revision, self.streaming, texts)

    def _schema(self, opened: Opened) -> pa.Schema | None:
        return opened.data.features.arrow_schema if opened.data is not None and opened.data.features else None

    def _is_exported(self, columns: Iterable[str]) -> bool:
        """Return whether these columns are those of a dataset that vlmdata exported, and the recipe names no others."""
        if not are_exported(columns):
            return False
        plain = HfDataset(path=self.path)
        return all(getattr(self, name) == getattr(plain, name) for name in ("image", "url", "caption", "extra"))

    def _has_inline(self) -> bool:
        """Return whether the column of images can hold bytes."""
        schema = self._schema(self._opened())
        return schema is not None and self.image in names_in(schema) and _has_bytes(_kind(schema, self.image))

    def _file_column(self, table: str) -> str:
        """Return the table's column of file names: `file_name`, or a column named after the image column.

        For example, if `image` is "photo", the names `photo_file_name` and `photo_file_names` are preferred to `file_name`.
        """
        names = column_names(table, ListFormat()) or []
        many = ["file_names"] if self.image == "images" else []
        known = [f"{self.image}_file_name", f"{self.image}_file_names", *many, "file_name"]
        return next((name for name in known if name in names), known[-1])

    def _row(self, row: dict[str, Any], undecoded: bool, meant: Mapping[str, Any], where: str) -> dict[str, Any]:
        if self._is_exported(row):
            return _exported(row, where)
        row |= {name: _meant(row[name], feature) for name, feature in meant.items()}
        captions: list[str] = []
        reason = "bad_encoding" if undecoded else None
        for name in self._captions():
            said, fault = texts_in(value_at(row, name, NO_TEXT))
            captions += said
            reason = reason or fault
        found = value_at(row, self.image)
        used = {self.url or self.image, *self._captions()}
        addresses = [clean(one.strip()) for one in map(in_text, flat(value_at(row, self.url))) if one and one.strip()]
        if self.url and not holds_bytes(found):
            images: list[dict[str, Any]] = [{"url": address} for address in addresses] or [{"url": None}]
            reason = reason or (None if addresses else "no_address")
        else:
            reach = self._opened().reach
            images = [reach.image(one) for one in flat(found)] or [reach.image(None)]
            used |= keep_addresses(images, {"url": addresses} if self.url else row)
        carried = [name for name in row if name not in used] if self.extra == "all" else self.extra
        extra = {name: value for name in carried if not _is_media(value := value_at(row, name))}
        made = captioned(images, captions, extra=clean(json_object(extra)) if extra else None, reason=reason)
        return with_place(made, where, name_in_source(found))


def _exported(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the row of a sample that vlmdata exported."""
    try:
        sample, read = sample_in(row)
        row = {"id": sample.key, **Webdataset(path="").row(sample, None, read)}  # without a tar, the row holds its images
        return with_place(row, where)
    except BadSample as error:
        return bad_record(where, str(error), reason=error.reason)


def _features_with_meaning(data: Any) -> dict[str, Any]:
    """Return the features that give values a meaning: class labels, and JSON stored as strings."""
    features = (data.features or {}).items()
    return {name: feature for name, feature in features if type(feature).__name__ in ("ClassLabel", "Json")}


def _meant(value: Any, feature: Any) -> Any:
    if type(feature).__name__ == "ClassLabel":  # -1: no label
        return feature.names[value] if isinstance(value, int) and 0 <= value < len(feature.names) else None
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _is_media(value: object) -> bool:
    """Return whether a value is bytes, holds bytes, or is an image, sound or video that the library stores as a path."""
    kept = value[0] if isinstance(value, list) and value else value
    return holds_bytes(value) or (isinstance(kept, Mapping) and kept.keys() == {"bytes", "path"})


def _kind(schema: pa.Schema, name: str) -> pa.DataType:
    """Return the type of a column or a field inside structs. Lists have the type of their items. JSON fields are strings."""
    names = {field.name: field.type for field in schema}
    head, rest = (name, "") if name in names else name.split(".", 1)
    kind = item_type(names[head])
    if rest and not pa.types.is_struct(kind):
        return pa.string()
    return _kind(pa.schema(list(kind)), rest) if rest else kind


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_bytes(field.type) for field in kind)
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(holds(kind) for holds in is_bytes)


def _is_image(kind: pa.DataType) -> bool:
    """Return whether values of this type can be images or names of images."""
    if pa.types.is_struct(kind):
        return bool({"bytes", "path", "url"} & {field.name for field in kind})
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(holds(kind) for holds in is_text) or _has_bytes(kind)
