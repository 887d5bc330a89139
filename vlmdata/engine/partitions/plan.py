"""The plan of a dataset: the rows of each partition. The plan is written once.

A source is a list, such as a Parquet file of addresses, or an archive, such as a set of tars with images. A list is sorted by
key and cut into partitions of equal size. So every partition is a fair sample of the list, and the addresses of one host are
spread over the partitions. Memory use is bounded, because rows pass through buckets on disk. The plan of an archive holds only
the pieces of the archive. Each piece is a partition, and the worker that reads the piece makes the rows.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.partitions import tombstones
from vlmdata.engine.partitions.keys import content_keys, key_order, number_repeats
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.store.json_shapes import WORK_FIX, Planned, read_record
from vlmdata.engine.store.store_protocol import Store
from vlmdata.notes import note
from vlmdata.recipe import Recipe, fingerprint
from vlmdata.redact import MARK, redacted, redacted_tree
from vlmdata.row import ROW, conform, flatten
from vlmdata.step import RecipeError, Source, id_of
from vlmdata.steps.download import Download
from vlmdata.web.crowded_host import crowd

RECORD = "work/plan.json"
PARTITIONS_PER_FILE = 64
IN_MEMORY_BYTES = 64_000_000  # maximum bytes of rows to sort in memory; a larger list is sorted in buckets on disk
BUCKETS = 256
MAX_DEPTH = 3  # levels of buckets, which give 16 million buckets; a bucket that is still too large holds one row repeated often


@dataclass(frozen=True)
class PartitionPlan:
    """The plan of a dataset, as work/plan.json stores it.

    The plan of a list has `files`, each of which holds the rows of 64 partitions. The plan of an archive has `pieces`, which
    say what each partition reads.
    """

    source: str  # fingerprint of the source; a run with another source is refused
    part_rows: int
    parts: int  # number of partitions; the plan on disk uses this name
    rows: int | None  # None for an archive: unknown until it is read
    files: list[str]
    pieces: list[dict[str, Any]]  # without the secrets of addresses
    others: dict[str, int] = field(default_factory=dict)  # records of a list that give no row, by kind

    def piece(self, partition: int, source: Source) -> dict[str, Any]:
        """Return the piece of an archive that a partition reads.

        Its addresses include the secrets that the plan on disk does not hold.
        """
        piece = self.pieces[partition]
        if MARK not in json.dumps(piece):
            return piece
        whole = {stored: path for path, stored in _stored(source).items()}
        return {name: whole.get(value, value) if isinstance(value, str) else value for name, value in piece.items()}

    @property
    def is_list(self) -> bool:
        """True for the plan of a list, even of an empty list, and False for the plan of an archive."""
        return not self.pieces

    def read_partition(self, store: Store, partition: int) -> pa.Table:
        """Return the rows of one partition of a list: the rows of the source, with a key for each row.

        If the list is empty, the table is empty.
        """
        if not self.files:
            return ROW.empty_table()
        with store.open(self.files[partition // PARTITIONS_PER_FILE]) as file:
            return conform(pq.ParquetFile(file).read_row_group(partition % PARTITIONS_PER_FILE))


def load(store: Store) -> PartitionPlan | None:
    """Return the plan of a dataset, or None if the dataset has no plan yet."""
    try:
        record = read_record(store, RECORD, Planned, WORK_FIX)
    except FileNotFoundError:
        return None
    return PartitionPlan(**{one.name: record[one.name] for one in fields(PartitionPlan) if one.name in record})


def make(recipe: Recipe, store: Store) -> PartitionPlan:
    """Return the plan in OUT, and write it first if there is none. Raises RecipeError if OUT was built from another source."""
    identity = source_identity(recipe.source)
    plan = load(store)
    if plan is None:
        store.put_new(RECORD, json.dumps(asdict(_write(recipe, store, identity))).encode())
        plan = load(store)  # another driver may have written it first
        assert plan is not None
    if plan.source != identity:
        raise RecipeError(other_source(store, recipe.source))
    return plan


def source_identity(source: Source) -> str:
    """Return a fingerprint of a source: of its parameters and of the names and sizes of its files."""
    values = asdict(source)
    parameters = {one.name: values[one.name] for one in fields(source) if values[one.name] != one.default}
    parameters.pop("path", None)  # only the names of files, because a folder may have moved
    names = [(redacted(Path(name).name), size) for name, size in source.files()]
    # redacted, because an address with a new signature is still the same source
    return fingerprint(id_of(source), redacted_tree(parameters), names)


def began(store: Store) -> float:
    """Return when the plan in OUT was made, in seconds as in `os.stat`, or infinity if OUT is not a local folder."""
    return store.path(RECORD).stat().st_mtime if isinstance(store, LocalStore) else math.inf


def other_source(store: Store, source: Source) -> str:
    """Return the message for a source that is not the one of the plan. It names a file that changed after the plan."""
    since = began(store)
    paths = [path for path, _ in source.files() if os.path.isfile(path)]
    newer = sorted(path for path in paths if os.stat(path).st_mtime > since)
    same = f". If it is the same source, restore {newer[0]}, which has changed since" if newer else ""
    return f"{store.url} was built from another source. Give another --out, or remove this dataset{same}"


def _write(recipe: Recipe, store: Store, identity: str) -> PartitionPlan:
    source = recipe.source
    stored = _stored(source)
    pieces = [] if source.shuffled else [{k: _lean_path(v, stored) for k, v in piece.items()} for piece in source.pieces()]
    if pieces:
        return PartitionPlan(identity, recipe.part_rows, len(pieces), None, [], pieces)
    files: list[str] = []
    sample: list[str | None] = []
    rows = 0
    others: Counter[str] = Counter()
    forgotten = tombstones.load(store, recipe)
    with tempfile.TemporaryDirectory(prefix="vlmdata-plan-") as folder:
        partitions = _cut(_in_key_order(source, Path(folder), others), recipe.part_rows)
        for group in _batched(partitions, PARTITIONS_PER_FILE):
            files.append(f"work/plan/{len(files):05d}.{uuid.uuid4().hex[:12]}.parquet")
            lean = _lean(forgotten.apply(pa.concat_tables(group)))
            with store.new_file(files[-1]) as out:
                pq.write_table(lean, out, row_group_size=recipe.part_rows, compression="zstd", write_statistics=False)
            rows += len(lean)
            # the first rows are a fair sample, because rows are in key order
            sample = sample or flatten(group[0], "images").field("url").to_pylist()
    web = recipe.first(Download)
    if web and (warning := crowd(sample, rows, web)):
        note(warning)
    return PartitionPlan(identity, recipe.part_rows, -(-rows // recipe.part_rows), rows, files, [], dict(others))


def _stored(source: Source) -> dict[str, str]:
    """Map the path of each file of a source to the path that the plan stores.

    The stored path has no secrets. Paths that become equal without their secrets are numbered.
    """
    counts: Counter[str] = Counter()
    found = {}
    for path, _ in source.files():
        text = redacted(path)
        found[path] = text if text == path or not counts[text] else f"{text}#{counts[text]}"
        counts[text] += 1
    return found


def _lean_path(value: Any, stored: dict[str, str]) -> Any:
    return stored.get(value, redacted(value)) if isinstance(value, str) else value


def _lean(rows: pa.Table) -> pa.Table:
    """Leave out the columns, and the fields of images and texts, that are all null. `conform` restores them.

    A list of addresses uses two of forty columns. Writing the others would take most of the time.
    """
    columns: dict[str, pa.Array] = {}
    for name in rows.column_names:
        array = rows[name].combine_chunks()
        if name in ("images", "texts") and array.null_count < len(array):
            flat = flatten(rows, name)
            used = [f for f in flat.items.type if flat.field(f.name).null_count < len(flat.items)] or [flat.items.type[0]]
            values = [flat.field(one.name) for one in used]
            items = pa.StructArray.from_arrays(values, fields=used, mask=flat.items.is_null())
            columns[name] = pa.ListArray.from_arrays(flat.offsets, items, mask=array.is_null() if array.null_count else None)
        elif array.null_count < len(array):
            columns[name] = array
    return pa.table(columns)


def _in_key_order(source: Source, folder: Path, others: Counter[str]) -> Iterator[pa.Table]:
    """Yield the rows of a list sorted by key, in one table for each bucket. The keys of identical rows are numbered.

    `others` receives the counts of the records that give no row, by kind.
    """
    waiting: list[pa.Table] = []
    size = 0
    buckets: Buckets | None = None
    for piece in source.pieces():
        for table in source.read_counting(piece, others):
            table = conform(table)
            table = table.set_column(0, "key", pa.array(content_keys(table), pa.string()))
            if "id" in table.column_names:
                table = table.drop_columns(["id"])
            waiting.append(table)
            size += table.nbytes
            if size > IN_MEMORY_BYTES:
                buckets = buckets or Buckets(folder / "0", table.schema)
                buckets.add(pa.concat_tables(waiting))
                waiting, size = [], 0
                pa.default_memory_pool().release_unused()
    if buckets is None:
        if waiting:
            yield _sorted(pa.concat_tables(waiting))
        return
    if waiting:
        buckets.add(pa.concat_tables(waiting))
        waiting = []
    for table in buckets.tables():
        yield _sorted(table)
        pa.default_memory_pool().release_unused()  # without this, the pool would keep memory in proportion to the list


def _sorted(rows: pa.Table) -> pa.Table:
    keys = rows["key"].to_pylist()
    order = key_order(keys)
    rows = rows.take(pa.array(order))
    return rows.set_column(0, "key", pa.array(number_repeats([keys[i] for i in order]), pa.string()))


class Buckets:
    """An external sort: rows on disk in 256 files, one for each value of the first two hex digits of a key.

    A file that is too large is split again, by the next two digits.
    """

    def __init__(self, folder: Path, schema: pa.Schema, depth: int = 0):
        folder.mkdir()
        self.folder = folder
        self.depth = depth  # number of pairs of hex digits with which all keys in these buckets begin
        self.schema = schema
        self.paths = [folder / f"{number:02x}.arrow" for number in range(BUCKETS)]
        self.writers = [pa.ipc.new_stream(str(path), schema) for path in self.paths]
        self.sizes = [0] * BUCKETS  # bytes in each bucket

    def add(self, rows: pa.Table) -> None:
        """Append each row to its bucket, in the order of the table."""
        rows = rows.combine_chunks()
        digits = slice(2 * self.depth, 2 * self.depth + 2)
        bucket = pa.array([int(key[digits], 16) for key in rows["key"].to_pylist()], pa.int16())
        order = pa.compute.sort_indices(bucket)  # stable: identical rows must keep their order
        rows, bucket = rows.take(order), bucket.take(order)
        starts = pa.array(range(BUCKETS + 1), pa.int16())
        bounds = bucket.to_numpy().searchsorted(starts.to_numpy())
        for number, writer in enumerate(self.writers):
            if bounds[number + 1] > bounds[number]:
                mine = rows.slice(bounds[number], bounds[number + 1] - bounds[number])
                writer.write_table(mine)
                self.sizes[number] += mine.nbytes

    def tables(self) -> Iterator[pa.Table]:
        """Close the files and yield one table for each bucket that has rows, in the order of keys."""
        for writer in self.writers:
            writer.close()
        for path, size in zip(self.paths, self.sizes, strict=True):
            if not size:
                continue
            if size > IN_MEMORY_BYTES and self.depth + 1 < MAX_DEPTH:
                yield from self._divided(path).tables()
                continue
            with pa.OSFile(str(path)) as file:
                table = pa.ipc.open_stream(file).read_all()
            path.unlink()
            yield table
        shutil.rmtree(self.folder, ignore_errors=True)

    def _divided(self, path: Path) -> Buckets:
        smaller = Buckets(path.with_suffix(""), self.schema, self.depth + 1)
        with pa.OSFile(str(path)) as file:
            for batch in pa.ipc.open_stream(file):
                smaller.add(pa.Table.from_batches([batch]))
        path.unlink()
        return smaller


def _cut(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of tables into tables of exactly `rows` rows. The last table may be shorter."""
    pieces: list[pa.Table] = []
    count = 0
    for table in tables:
        while len(table):
            piece = table.slice(0, rows - count)
            pieces.append(piece)
            count += len(piece)
            table = table.slice(len(piece))
            if count == rows:
                yield pa.concat_tables(pieces).combine_chunks()
                pieces, count = [], 0
    if count:
        yield pa.concat_tables(pieces).combine_chunks()


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
