"""Output folders of img2dataset, whose images are used without a new download."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.home_folder import at_home
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Read
from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.img2dataset_columns import OUR_KEY, json_columns, parsed, unescaped
from vlmdata.readers.nested import texts_in
from vlmdata.readers.open_file import UNREADABLE, seekable
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, pair, tables
from vlmdata.readers.sample_facts import origins_in, own_texts, stated_fields, unstated_fields, with_grounding, with_origin
from vlmdata.readers.source_images import ENDINGS, in_place, inline
from vlmdata.readers.stated_values import hash_column, whole_numbers
from vlmdata.readers.strings import clean
from vlmdata.readers.tar_samples import MAX_IMAGE, read_tar, tar_rows
from vlmdata.safe_path import Refused, safe_path
from vlmdata.sources.files import Files
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError, Source
from vlmdata.untrusted import one_line
from vlmdata.web.img2dataset_errors import reason_of

OWN = {"key", "url", "caption", "status", "error_message", "width", "height", "original_width", "original_height", "sha256"}
IN_PARQUET = ("jpg", "png", "webp")  # columns of image bytes in the output format `parquet`
SUCCESS = "success"
STATISTICS = "_stats.json"


@dataclass(frozen=True, kw_only=True)
class Img2dataset(Source):
    """Yield every row of img2dataset's Parquet files. The images are in tars, in files or in the Parquet files.

    A row that failed in img2dataset is dropped with its error as the reason (`http_404`, `timeout`, `image_decoding_error`).
    A successful row whose image is missing is dropped as `missing_in_shard`. Samples that no Parquet file names are read as
    `webdataset` and `files` read them. An unreadable Parquet file, a damaged range of a tar, and a shard that has only its
    statistics are one `bad_record` each.
    """

    id: ClassVar = "vlmdata.sources.img2dataset"
    example: ClassVar = "source: {type: img2dataset, path: downloaded}"
    shuffled: ClassVar[bool] = False

    path: Annotated[str, Doc("Output folder of img2dataset, local or on any store that fsspec knows.")]

    def check(self) -> None:
        self.files()
        for path in self._ending_in(".parquet"):
            try:
                names = self._columns(path)
            except RecipeError:
                continue  # a killed run may leave a damaged file, for which `read` gives a bad record
            if not {"key", "status"} <= set(names):
                columns = f"It needs the columns `key` and `status`, but has only {', '.join(names)}"
                raise RecipeError(f"{path} is not from img2dataset. {columns}")
            break

    def files(self) -> list[File]:
        return find(self.path, (".parquet", ".tar"))

    def pieces(self) -> list[dict[str, Any]]:
        """Return a unit of work for each shard.

        The unit's `path` is the first of these that exists: the shard's Parquet file, its tar, its statistics file, its folder.
        """
        shards: dict[str, str] = {}
        for ending in (".parquet", ".tar", STATISTICS):
            for path in self._ending_in(ending):
                shards.setdefault(path.removesuffix(ending), path)
        if os.path.isdir(folder := at_home(self.path)):
            for name in filter(str.isdigit, os.listdir(folder)):
                shards.setdefault(path := os.path.abspath(os.path.join(folder, name)), path)
        return [{"path": shards[shard]} for shard in sorted(shards)]

    def _ending_in(self, ending: str) -> list[str]:
        try:
            return [path for path, _ in find(self.path, (ending,)) if path.endswith(ending)]
        except RecipeError:
            return []

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        path = piece["path"]
        shard = path.removesuffix(".parquet").removesuffix(".tar").removesuffix(STATISTICS)
        table: str | None = path if path.endswith(".parquet") else None
        problem: str | None = None
        try:
            if table:
                self._columns(table)
        except RecipeError as error:
            table, problem = None, "the file" + str(error).removeprefix(path)
        if table or _tars(shard):
            yield from tables(_shard(shard, table))
        elif parts := _parts(shard):
            for part in parts:
                yield from Files(path=shard).read(part)
        elif problem is None:
            problem = "the shard has no Parquet file and no images"
        if problem is not None:
            yield from tables([bad_record(os.path.basename(path), problem)])

    @staticmethod
    def _columns(path: str) -> list[str]:
        with seekable(path) as file:
            try:
                return pq.ParquetFile(file).schema_arrow.names
            except UNREADABLE as error:
                raise RecipeError(f"{path} cannot be read as Parquet: {one_line(error)}") from None


def _shard(shard: str, path: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of the Parquet file at `path`, then rows for the samples whose keys are not in this file.

    The samples are those of the shard's tar or folder.
    """
    named: set[str] = set()
    images = _images(shard) if path is not None else {}
    if path is not None:
        try:
            with seekable(path) as file:
                opened = pq.ParquetFile(file, pre_buffer=False)
                in_json = json_columns(opened.schema_arrow)
                for batch in opened.iter_batches(batch_size=1000):
                    for record in (parsed(one, in_json) for one in batch.to_pylist()):
                        named.add(str(record["key"]))
                        yield _row(record, images, os.path.basename(shard))
        except (*UNREADABLE, pa.ArrowException, KeyError) as error:
            yield bad_record(os.path.basename(path), f"the file cannot be read as Parquet of img2dataset: {one_line(error)}")
    samples = Webdataset(path=shard)

    def unnamed(sample: SampleMembers, blob: str | None, read: Read) -> dict[str, Any] | None:
        return None if sample.key in named else samples.row(sample, blob, read)

    tars = _tars(shard)
    for tar in tars:
        yield from tar_rows(tar, os.path.basename(tar), unnamed)
    if not tars and images.keys() - named:
        for part in _parts(shard):
            for table in Files(path=shard).read(part):
                yield from (row for row in table.to_pylist() if os.path.splitext(row["id"].partition("\n")[0])[0] not in named)


def _parts(shard: str) -> list[dict[str, Any]]:
    """Return the units of work for a shard that is a local folder of images, or [] for any other shard."""
    try:
        return Files(path=shard).pieces() if not is_remote(shard) and os.path.isdir(shard) else []
    except RecipeError:
        return []


def _tars(shard: str) -> list[str]:
    try:
        return [file.path for file in find(f"{shard}.tar", ())]
    except RecipeError:
        return []


def _images(shard: str) -> dict[str, dict[str, Any]]:
    """Return a shard's images by key, from the tar or the folder beside its Parquet file."""
    found: dict[str, dict[str, Any]] = {}
    tars = _tars(shard)
    for tar in tars:
        with contextlib.ExitStack() as stack:
            contents, read, is_plain = read_tar(tar, stack)
            for sample in contents.samples:
                for extension, member in sample.members:
                    if extension in IMAGE_EXTENSIONS and member.size <= MAX_IMAGE:
                        data = read(member.offset, member.size)
                        found[sample.key] = in_place(tar, member.offset, data) if is_plain else inline(data)
    if not tars and not is_remote(shard) and os.path.isdir(shard):
        for name in sorted(os.listdir(shard)):
            if name.lower().endswith(ENDINGS):
                found[os.path.splitext(name)[0]] = _loose(name, shard)
    return found


def _loose(name: str, folder: str) -> dict[str, Any]:
    """Return the image in the file `name` of `folder`. A link to a file outside the folder gives a dropped image."""
    try:
        file = safe_path(name, folder)
        with open(file, "rb") as stream:
            return in_place(file, 0, stream.read(MAX_IMAGE))
    except Refused as error:
        return {"drop": "source", "reason": str(error)}


def _row(record: Mapping[str, Any], images: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
    key = str(record["key"])
    data = next((record[column] for column in IN_PARQUET if isinstance(record.get(column), bytes)), None)
    image = inline(data) if data is not None else images.get(key, {})
    reason = None
    if record["status"] != SUCCESS:
        reason = reason_of(record["status"], record.get("error_message"))
        image = {"drop": "source", "reason": reason}
    elif not image:
        reason = "missing_in_shard"
        image = {"drop": "source", "reason": reason}
    is_exported = isinstance(record.get(OUR_KEY), str)
    captions, wrong = own_texts([record.get("caption")]) if is_exported else texts_in(record.get("caption"))
    fields: dict[str, Any] = {"id": clean(f"{name}/{key}\n{record.get('url')}\n{captions[:1]}"), "reason": reason or wrong}
    if is_exported:
        return _exported(record, image, captions, fields)
    width, height = whole_numbers([record.get("original_width"), record.get("original_height")]).to_pylist()
    stated = {"original_width": width, "original_height": height, "sha256": hash_column([record.get("sha256")])[0].as_py()}
    said = stated_fields({"url": record.get("url"), **stated})
    about = {column: value for column, value in said.items() if value}
    skip = OWN | set(IN_PARQUET) | ({"exif"} if record.get("exif") in (None, "{}") else set())
    extra = {column: value for column, value in record.items() if column not in skip and value is not None}
    if record.get("error_message"):
        extra["error_message"] = record["error_message"]
    return pair({**image, **about}, captions, extra=clean(json_object(extra)) if extra else None, **fields)


def _exported(
    record: Mapping[str, Any], image: Mapping[str, Any], captions: list[str], fields: dict[str, Any]
) -> dict[str, Any]:
    """Return the row of a sample that vlmdata exported. It equals the row that `webdataset` reads from the dataset's tars."""
    key = record[OUR_KEY]
    theirs = ("key", "status", "error_message", OUR_KEY)
    own = {unescaped(name): value for name, value in record.items() if name not in theirs and value is not None}
    facts = {**own, "key": key}
    others = [text for text in facts.get("alternatives") or () if isinstance(text, str)]
    row = pair({**image, **stated_fields(facts)}, [*captions, *others], origins=origins_in(facts), **fields)
    row = with_grounding(row, facts)
    extra = with_origin(unstated_fields(facts, key, row, image), facts, key, source_key=key)
    return {**row, "extra": clean(json_object(extra))}
