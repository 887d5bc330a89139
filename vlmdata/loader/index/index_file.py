"""The index of a dataset: the file `index.parquet` beside the tars, with one row per sample, in the order of the shards.

It holds the facts that a loader needs before it opens a tar: the location of each member, the length of the text, and the sizes
of the images. Additional float columns hold scores, which the loader ignores.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.errors import Error
from vlmdata.process.thread import has_room
from vlmdata.untrusted import errors_as, one_line

INDEX_FILE = "index.parquet"
MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
IMAGE = pa.struct([("width", pa.int32()), ("height", pa.int32())])
INDEX = pa.schema(
    [
        ("key", pa.string()),
        # path of the tar, relative to `base` in the metadata of the file or, without `base`, to the folder of the index; if
        # `base` is empty, this is a full address
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        # offset of the sample's first tar header
        ("offset", pa.int64()),
        # bytes of the sample in the tar, with headers and padding
        ("size", pa.int64()),
        # name: the part after the key and its dot ("jpg", "0.jpg"); offset: start of the data in the tar; size: without padding
        ("members", pa.list_(MEMBER)),
        # characters of text in a dataset that vlmdata built; bytes of the text or JSON member in other tars
        ("text_chars", pa.int32()),
        # null if the sizes were not read
        ("images", pa.list_(IMAGE)),
    ]
)


class NoIndex(Error, ValueError):
    """Raised for a file that is not an index of samples or is damaged. The message names the file."""


class NoSamples(NoIndex):
    """Raised for an index without samples. The message names the dataset, or the index, and says what to do."""


@contextmanager
def parsing(file: str | os.PathLike) -> Iterator[None]:
    """Return a context manager that converts the errors of parsing a file to `NoIndex`. The message names the file.

    If the file cannot be read, the error remains an OSError.
    """

    def becomes(error: Exception) -> Exception:
        if isinstance(error, OSError) and error.errno:
            return OSError(error.errno, error.strerror, str(file))
        if isinstance(error, MemoryError) and not has_room():
            return error
        return NoIndex(f"{file} is damaged: {one_line(error)[:120]}. Restore the file, or index the tars again (vlmdata index)")

    with errors_as(becomes, passes=(NoIndex,)):  # for damage, Arrow raises eight types of errors, and NumPy raises others
        yield


class IndexRow(NamedTuple):
    """One sample of the index: see INDEX. `members` holds (name, offset, size), and `images` holds (width, height)."""

    key: str
    shard: str
    offset: int
    size: int
    members: Sequence[tuple[str, int, int]]
    text_chars: int
    images: Sequence[tuple[int, int]] | None


def index_table(rows: Iterable[IndexRow]) -> pa.Table:
    """Return rows as one table with the schema INDEX."""
    keys, shards, offsets, sizes, members, chars, images = zip(*rows, strict=True) if (rows := list(rows)) else ((),) * 7
    flat = [member for sample in members for member in sample]
    pixels = [image for sample in images for image in sample or ()]
    columns = [
        pa.array(keys, pa.string()),
        pa.array(shards, pa.string()).dictionary_encode(),
        pa.array(offsets, pa.int64()),
        pa.array(sizes, pa.int64()),
        _nested([len(sample) for sample in members], flat, MEMBER),
        pa.array(chars, pa.int32()),
        _nested([None if sample is None else len(sample) for sample in images], pixels, IMAGE),
    ]
    return pa.Table.from_arrays(columns, schema=INDEX)


def _nested(counts: Sequence[int | None], flat: Sequence[tuple], of: pa.StructType) -> pa.ListArray:
    """Return a list column of the tuples in `flat`.

    Row r has the next `counts[r]` tuples, or is null if `counts[r]` is None.
    """
    ends = np.cumsum([0, *(count or 0 for count in counts)], dtype=np.int32)
    nulls = pa.array([count is None for count in counts], pa.bool_()) if None in counts else None
    parts = list(zip(*flat, strict=True)) if flat else [() for _ in of]
    fields = [pa.array(part, field.type) for part, field in zip(parts, of, strict=True)]
    return pa.ListArray.from_arrays(pa.array(ends), pa.StructArray.from_arrays(fields, fields=list(of)), mask=nulls)


class IndexWriter:
    """A context manager that writes an index in pieces, for datasets larger than memory.

    The file appears at `path` if the block succeeds.
    """

    def __init__(self, path: str | os.PathLike, schema: pa.Schema = INDEX) -> None:
        self.path = Path(path)
        self.schema = schema
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def __enter__(self) -> "IndexWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # offsets and sizes change in small steps, so delta encoding makes the file a third as large as dictionaries do
        integers = ["offset", "size", "members.list.element.offset", "members.list.element.size", "text_chars"]
        self._writer = pq.ParquetWriter(
            self._part,
            self.schema,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=["shard", "members.list.element.name"],
            column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        )
        return self

    def write(self, table: pa.Table) -> None:
        """Append rows. Each call starts a new row group. A row group has at most 131,072 rows."""
        self._writer.write_table(table.cast(self.schema), row_group_size=1 << 17)

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink()


def numbers_of(array: pa.Array) -> np.ndarray:
    """Return an integer column as an array without a copy.

    Raises ValueError for nulls. `to_numpy` would import pandas, which takes 0.3 s.
    """
    if array.null_count:
        raise ValueError("a column of integers has a null value")
    kind = "i" if pa.types.is_signed_integer(array.type) else "u"
    data = np.frombuffer(array.buffers()[1] or b"", f"{kind}{array.type.byte_width}")
    return data[array.offset : array.offset + len(array)]


def check_schema(schema: pa.Schema, file: str | os.PathLike) -> None:
    """Raise NoIndex if `schema` lacks a column of INDEX or has it with another type. The message names these columns."""
    wrong = [field.name for field in INDEX if field.name not in schema.names or not _same(schema.field(field.name), field)]
    if not set(INDEX.names) & set(schema.names):
        fix = f"If it is a list of addresses, build a dataset from it: vlmdata run captions --set source.path={file}"
        raise NoIndex(f"{file} is not an index of samples, but another table. {fix}")
    if wrong:
        why = f"the columns {wrong} are missing or have a wrong type"
        raise NoIndex(f"{file} is not an index of samples: {why}. Build an index with `vlmdata index`")


def _same(found: pa.Field, wanted: pa.Field) -> bool:
    if wanted.name == "shard":
        return found.type == pa.string() or pa.types.is_dictionary(found.type)
    return found.type.equals(wanted.type)
