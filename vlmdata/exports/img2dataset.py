"""Export caption pairs as img2dataset writes them, which the source `img2dataset` reads back: tars or files, and Parquet."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.output.pack import BLOCK, RECORD, header
from vlmdata.exporting.column_kinds import NULL, arrow_type, cell, kind_of, merged
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Published, Sample, Shard
from vlmdata.readers.img2dataset_columns import OUR_KEY, escaped

DIGITS = 5  # of a shard's number: img2dataset's default for `oom_shard_count`
GROUP = 1000  # rows in a row group
TEXT, SIZE = pa.string(), pa.int32()
COLUMNS: dict[str, pa.DataType] = {  # the order and the types of img2dataset 1.47; a list's other columns come before them
    **dict.fromkeys(("caption", "url", "key", "status", "error_message"), TEXT),
    **dict.fromkeys(("width", "height", "original_width", "original_height"), SIZE),
    **dict.fromkeys(("exif", "sha256"), TEXT),
}
# img2dataset's logger divides by the difference of the times, so they are not equal
TIMES = {"duration": 1.0, "start_time": 0.0, "end_time": 1.0}


@dataclass(frozen=True, kw_only=True)
class Img2dataset(Exporter):
    """Write 00000.tar, 00000.parquet and 00000_stats.json for each shard, with the names and types of img2dataset 1.47.

    With `form: files`, the members of a shard are files in the folder 00000. Keys are numbers, as img2dataset counts them. Our
    key is in the column and field `vlmdata_key`. The times in the statistics are fixed.
    """

    holds = ("captions",)

    form: Literal["webdataset", "files"] = "webdataset"

    def published(self, layout: str) -> Published | None:
        return Published("*.tar", is_webdataset=True) if self.form == "webdataset" else None

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        name, kinds, count = shard_name(shard.number, shard.count), dict[str, str](), 0
        records = shard.each(lambda sample: (sample, record_of(sample)))
        digits = math.ceil(math.log10(shard.limit))
        first, width = shard.number * 10**digits, len(name) + digits
        with Members(draft, name, self.form) as members, draft.part(shard.number).open("w", encoding="utf-8") as part:
            for count, (sample, record) in enumerate(records, 1):
                record["key"] = key = f"{first + count - 1:0{width}d}"
                image, body = next(iter(sample.images.items()))
                members.write(f"{key}.{image}", body)
                members.write(f"{key}.json", json.dumps(record, indent=4).encode())
                members.write(f"{key}.txt", sample.members["txt"])
                part.write(json.dumps(record) + "\n")
                for column, value in record.items():
                    if column not in COLUMNS:
                        kinds[column] = merged(kinds.get(column, NULL), kind_of(value))
        draft.write(f"{name}_stats.json", json.dumps(_statistics(count), indent=4).encode())
        return {"kinds": kinds}

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        """Write the Parquet files, all with the same columns. A file that is already there is complete."""
        kinds: dict[str, str] = {}
        count = 0
        for record in records:
            count += 1
            for column, kind in record.notes["kinds"].items():
                kinds[column] = merged(kinds.get(column, NULL), kind)
        for number in range(count):
            path = draft.files / f"{shard_name(number, count)}.parquet"
            if not path.exists():
                new = draft.part(number).with_suffix(".parquet")
                _write_parquet(draft.part(number), new, dict(sorted(kinds.items())))
                os.replace(new, path)


def shard_name(number: int, count: int) -> str:
    """Return the name of a shard's files without their endings."""
    return f"{number:0{max(DIGITS, len(str(count - 1)))}d}"


def record_of(sample: Sample) -> dict[str, Any]:
    """Return the JSON of a caption pair as img2dataset's fields, without its key. Other fields come first, sorted by name.

    Raises ValueError if a field does not have the type of its column.
    """
    facts = {name: value for name, value in sample.facts.items() if name != "key"}
    exif = facts.pop("exif") if isinstance(facts.get("exif"), str) else None  # of a dataset that was read from img2dataset
    ours = {"caption": sample.members["txt"].decode(), "key": None, "status": "success", "error_message": None, "exif": exif}
    stated = {name: facts.pop(name, None) for name in COLUMNS if name not in ours}
    facts.pop("caption", None)
    for name, value in stated.items():
        fits = isinstance(value, str) if COLUMNS[name] == TEXT else type(value) is int and 0 <= value < 1 << 31
        if value is not None and not fits:
            raise ValueError(f"`{name}` in its JSON is not {'a text' if COLUMNS[name] == TEXT else 'a size'}")
    own = {**{escaped(name): value for name, value in facts.items()}, OUR_KEY: sample.key}
    record = {**dict(sorted(own.items())), **{name: ours.get(name, stated.get(name)) for name in COLUMNS}}
    json.dumps(record, ensure_ascii=False).encode()  # raises UnicodeEncodeError for half a surrogate pair
    return record


def _statistics(count: int) -> dict[str, Any]:
    failed = {"failed_to_download": 0, "failed_to_resize": 0}
    return {"count": count, "successes": count, **failed, **TIMES, "status_dict": {"success": count} if count else {}}


def _write_parquet(lines: Path, path: Path, kinds: Mapping[str, str]) -> None:
    schema = pa.schema({**{name: arrow_type(kind) for name, kind in kinds.items()}, **COLUMNS})
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _groups(lines):
            own = {name: [cell(row.get(name), kind) for row in rows] for name, kind in kinds.items()}
            columns = {**own, **{name: [row[name] for row in rows] for name in COLUMNS}}
            writer.write_table(pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}))


def _groups(lines: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    with lines.open(encoding="utf-8") as file:
        for line in file:
            rows.append(json.loads(line))
            if len(rows) == GROUP:
                yield rows
                rows = []
    if rows:
        yield rows


class Members:
    """The members of a shard's samples: in a tar, or as files in a folder."""

    def __init__(self, draft: Draft, name: str, form: str) -> None:
        self.draft, self.name = draft, name
        self.tar = (draft.files / f"{name}.tar").open("wb") if form == "webdataset" else None

    def write(self, name: str, data: bytes) -> None:
        """Write a member. Members of a sample must follow each other."""
        if self.tar is None:
            self.draft.write(f"{self.name}/{name}", data)
        else:
            self.tar.write(header(name, len(data)) + data + bytes(-len(data) % BLOCK))

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *error: object) -> None:
        if self.tar is not None:
            self.tar.write(bytes(2 * BLOCK) + bytes(-(self.tar.tell() + 2 * BLOCK) % RECORD))
            self.tar.close()
