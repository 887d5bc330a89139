"""A folder that img2dataset wrote: its images are filtered, deduplicated and packed without being fetched again."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.intake.find import File, find, is_remote
from vlmdata.intake.opened import UNREADABLE, seekable
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import ENDINGS, in_place, inline
from vlmdata.intake.rows import pair, tables
from vlmdata.intake.strings import clean
from vlmdata.intake.tars import tar_samples
from vlmdata.loader.scan import IMAGE_EXTENSIONS
from vlmdata.step import RecipeError, Source

OWN = {"key", "url", "caption", "status", "error_message", "width", "height", "original_width", "original_height", "sha256"}
IN_PARQUET = ("jpg", "png", "webp")  # columns of image bytes where the output format was parquet
SUCCESS = "success"


@dataclass(frozen=True, kw_only=True)
class Img2dataset(Source):
    """Every row of img2dataset's Parquet files, from output as tars, as files or inside the Parquet.

    Rows that failed there are dropped with its error as the reason (`http_404`, `timeout`, `image_decoding_error`); rows
    that it calls successful but whose image is not there are dropped as `missing_in_shard`. Images stay where they are.
    """

    shuffled: ClassVar[bool] = False

    path: str  # the output folder, local or on any fsspec store

    def check(self) -> None:
        for path, _ in self._files()[:1]:
            names = self._columns(path)
            if not {"key", "status"} <= set(names):
                raise RecipeError(f"{path}: its columns ({', '.join(names)}) are not those that img2dataset writes")

    def files(self) -> list[File]:
        return find(self.path, (".parquet", ".tar"))

    def pieces(self) -> list[dict[str, Any]]:
        return [{"path": file.path} for file in self._files()]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        path = piece["path"]
        name = os.path.basename(path).removesuffix(".parquet")
        images = _images(path)
        with seekable(path) as file:
            try:
                for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(batch_size=1000):
                    rows = (_row(record, images, name) for record in batch.to_pylist())
                    yield from tables(rows)
            except UNREADABLE as error:
                raise RecipeError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None

    def _files(self) -> list[File]:
        return find(self.path, (".parquet",))

    @staticmethod
    def _columns(path: str) -> list[str]:
        with seekable(path) as file:
            try:
                return pq.ParquetFile(file).schema_arrow.names
            except UNREADABLE as error:
                raise RecipeError(f"{path}: cannot be read as Parquet: {error}") from None


def _images(path: str) -> dict[str, dict[str, Any]]:
    """Return the images beside a Parquet file, by key: in the tar of its name, or in the folder of its name."""
    base = path.removesuffix(".parquet")
    try:
        tars = find(f"{base}.tar", ())
    except RecipeError:
        tars = []
    found: dict[str, dict[str, Any]] = {}
    for tar in tars:
        for sample in tar_samples(tar.path):
            if isinstance(sample, str):  # the end of the tar is lost; its rows will be missing
                break
            for extension, member in sample[0].members:
                if extension in IMAGE_EXTENSIONS:
                    found[sample[0].key] = in_place(tar.path, member.offset, sample[1](member.offset, member.size))
    if not tars and not is_remote(base) and os.path.isdir(base):
        for name in sorted(os.listdir(base)):
            if name.lower().endswith(ENDINGS):
                file = os.path.abspath(os.path.join(base, name))
                with open(file, "rb") as stream:
                    found[os.path.splitext(name)[0]] = in_place(file, 0, stream.read())
    return found


def _row(record: Mapping[str, Any], images: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
    key = str(record["key"])
    data = next((record[column] for column in IN_PARQUET if isinstance(record.get(column), bytes)), None)
    image = inline(data) if data is not None else images.get(key, {})
    told = {column: record[column] for column in ("url", "original_width", "original_height", "sha256") if record.get(column)}
    reason = None
    if record["status"] != SUCCESS:
        reason = reason_of(record["status"], record.get("error_message"))
        image = {"drop": "source", "reason": reason}
    elif not image:
        reason = "missing_in_shard"
        image = {"drop": "source", "reason": reason}
    skip = OWN | set(IN_PARQUET) | ({"exif"} if record.get("exif") in (None, "{}") else set())
    extra = {column: value for column, value in record.items() if column not in skip and value is not None}
    if record.get("error_message"):
        extra["error_message"] = record["error_message"]
    captions = [clean(record["caption"])] if isinstance(record.get("caption"), str) else []
    own_id = f"{name}/{key}\n{record.get('url')}\n{captions[:1]}"
    fields = {"id": clean(own_id), "extra": clean(json_object(extra)) if extra else None, "reason": reason}
    return pair({**image, **told}, captions, **fields)


def reason_of(status: str | None, message: str | None) -> str:
    """Return img2dataset's error as a word for the ledger: http_404, timeout, no_such_host, or its message in words."""
    if not message:
        return status or "unknown"
    code = re.search(r"HTTP Error (\d{3})", message)
    if code:
        return f"http_{code[1]}"
    for sign, word in _SIGNS.items():
        if sign in message.lower():
            return word
    return re.sub(r"[^a-z]+", "_", message.lower()).strip("_")[:60] or status or "unknown"


_SIGNS = {
    "timed out": "timeout",
    "name or service not known": "no_such_host",
    "no address associated": "no_such_host",
    "nodename nor servname": "no_such_host",
    "certificate": "tls",
    "ssl": "tls",
    "connection refused": "connection_refused",
    "connection reset": "connection_reset",
    "unknown url type": "not_http",
}
