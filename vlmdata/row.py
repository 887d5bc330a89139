"""The row: what one record looks like while a dataset is being built.

A row has two aligned lists, `images` and `texts`; at each position one of the two is null (OBELICS's form). A caption pair
is a document with one image and one text, whose other captions are alternatives of that text; a conversation adds
`roles`, and `turns` and `tools` where they say something. Rows travel as Arrow tables. Positions never move: a rejected image
or text stays in its place with `drop` set, a rejected row stays in its table with `drop` set, and only packing leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

VERDICT = [
    pa.field("drop", pa.string()),  # label of the step that rejected it; null while it lives
    pa.field("reason", pa.string()),  # http_404, min_side ...: what exactly was wrong
    pa.field("value", pa.float64()),  # what was measured,
    pa.field("threshold", pa.float64()),  # and what it was held against
]

IMAGE = pa.struct(
    [
        pa.field("url", pa.string()),
        pa.field("alt", pa.string()),
        pa.field(
            "caption", pa.string()
        ),  # of the figure around it, where the source tells; its words may stand in the texts too
        pa.field("rendered_width", pa.int32()),  # pixels, as the page asked for
        pa.field("rendered_height", pa.int32()),
        pa.field("time_s", pa.float64()),  # of a frame of a video
        pa.field("boxes", pa.list_(pa.list_(pa.float64(), 4))),  # x0, y0, x1, y1 in pixels, follow every resize
        pa.field("data", pa.binary()),  # encoded bytes that the source gave inline; null once they lie in a blob
        pa.field("blob", pa.string()),  # the file that holds the encoded bytes: a name in work/ or the source's path
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("format", pa.string()),  # jpeg, png, webp
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("original_format", pa.string()),  # as fetched, whatever it is stored as
        pa.field("sha256", pa.string()),  # of the bytes as fetched, hex
        pa.field("phash", pa.uint64()),  # of the pixels as stored
        *VERDICT,
    ]
)

TEXT = pa.struct([pa.field("text", pa.string()), pa.field("alternatives", pa.list_(pa.string())), *VERDICT])

ROW = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("url", pa.string()),  # of the page; null for a caption pair
        pa.field("images", pa.list_(IMAGE)),
        pa.field("texts", pa.list_(TEXT)),
        pa.field("roles", pa.list_(pa.string())),  # user, assistant, system, tool; null where there is no conversation
        # of each position null or a JSON object: `kind`, reasoning or tool_call (the text is JSON of name, arguments and id);
        # of its message, at the first position: `begins` (though the same role spoke before), `train`, `name`, `tool_call_id`
        pa.field("turns", pa.list_(pa.string())),
        pa.field("tools", pa.string()),  # of a conversation: the functions on offer, a JSON list of their schemas
        # of each position of `images`, what the source says the bytes at its address hash to, hex; null where it says nothing
        pa.field("stated_hashes", pa.list_(pa.string())),
        pa.field("extra", pa.string()),  # JSON object: the source's other columns, carried into the sample
        pa.field(
            "place", pa.string()
        ),  # of what was dropped or has no address: "a.tar, byte 1536", "b.jsonl, line 17", "c.csv, row 9"
        pa.field("problem", pa.string()),  # what was wrong there, or what the row names
        *VERDICT,
        pa.field("cluster", pa.string()),  # key of the row that stands for this one's duplicates
    ]
)


def conform(table: pa.Table) -> pa.Table:
    """Return the table with every column of ROW, in order, missing ones and missing struct fields null; others follow."""
    columns = {}
    for field in ROW:
        if field.name in table.column_names:
            columns[field.name] = _conform(table[field.name].combine_chunks(), field.type)
        else:
            columns[field.name] = pa.nulls(len(table), field.type)
    for name in table.column_names:
        columns.setdefault(name, table[name].combine_chunks())
    return pa.table(columns)


def _conform(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_list(kind) and pa.types.is_list(array.type):
        values = _conform(array.values, kind.value_type)
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(array.offsets, values, mask=mask)
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        names = [field.name for field in array.type]
        fields = [
            _conform(array.field(field.name), field.type) if field.name in names else pa.nulls(len(array), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    return array.cast(kind)


@dataclass(frozen=True)
class Flat:
    """One list column laid flat: `items[i]` belongs to row `parents[i]`; `offsets` are the list's own."""

    items: pa.StructArray
    parents: np.ndarray
    offsets: pa.Array

    def field(self, name: str) -> pa.Array:
        """Return one field of every position, null where the position holds nothing."""
        return pc.struct_field(self.items, name)

    def alive(self) -> np.ndarray:
        """Say for each position whether it holds something that no step has rejected."""
        return _numpy(pc.and_(self.items.is_valid(), self.field("drop").is_null()))

    def first(self, chosen: np.ndarray) -> np.ndarray:
        """Return for each row its first position where `chosen` (one truth for each position) is true, -1 without one."""
        first = np.full(len(self.offsets) - 1, -1)
        where = np.flatnonzero(chosen)[::-1]  # of several the first is written last
        first[self.parents[where]] = where
        return first

    def rebuild(self, items: pa.Array) -> pa.ListArray:
        """Return the list column with other items in the same positions."""
        return pa.ListArray.from_arrays(self.offsets, items)


def flatten(rows: pa.Table, column: str) -> Flat:
    """Lay the positions of `images`, `texts` or any column aligned with them flat. A null list counts as empty."""
    array = in_one(rows[column])
    if array.null_count:
        array = pc.fill_null(array, pa.scalar([], array.type))
    items = array.flatten()
    lengths = np.asarray(pc.list_value_length(array), dtype=np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return Flat(items, np.repeat(np.arange(len(array)), lengths), offsets)


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece; it is copied only where it is in several, while `combine_chunks` always copies."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def aligned(rows: pa.Table, column: str, like: str) -> np.ndarray:
    """Return a measured list column as float64 for every position of `images` or `texts`; NaN where nothing was measured."""
    places = flatten(rows, like)
    values = np.full(len(places.items), np.nan)
    has = numbers(pc.list_value_length(in_one(rows[column]))) > 0
    values[has[places.parents]] = numbers(in_one(rows[column]).flatten())
    return values


def alive(rows: pa.Table) -> np.ndarray:
    """Say for each row whether no step has rejected it."""
    return _numpy(in_one(rows["drop"]).is_null())


def drop_rows(
    rows: pa.Table,
    bad: np.ndarray,
    step: str,
    *,
    reason: str | np.ndarray | None = None,
    value: np.ndarray | float | None = None,
    threshold: np.ndarray | float | None = None,
) -> pa.Table:
    """Reject the living rows where `bad` is true; a row that was rejected before keeps its first verdict."""
    hit = bad & alive(rows)
    if not hit.any():
        return rows
    for name, new in zip(("drop", "reason", "value", "threshold"), (step, reason, value, threshold), strict=True):
        rows = set_column(rows, name, _where(hit, new, in_one(rows[name])))
    return rows


def drop_images(rows: pa.Table, bad: np.ndarray, step: str, **verdict: object) -> pa.Table:
    """Reject images: `bad` has one truth for each position of `images` laid flat, and so has each array of the verdict.

    A living row that thereby loses its last image is rejected with the verdict of the first image it lost here.
    """
    return _drop_items(rows, "images", bad, step, verdict)


def drop_texts(rows: pa.Table, bad: np.ndarray, step: str, **verdict: object) -> pa.Table:
    """Reject texts, as drop_images rejects images: a row that loses its last text is rejected."""
    return _drop_items(rows, "texts", bad, step, verdict)


def _drop_items(rows: pa.Table, column: str, bad: np.ndarray, step: str, verdict: dict[str, Any]) -> pa.Table:
    flat = flatten(rows, column)
    before = flat.alive()
    hit = bad & before & alive(rows)[flat.parents]
    if not hit.any():
        return rows
    new = {"drop": step, "reason": None, "value": None, "threshold": None, **verdict}
    fields = [_where(hit, new[f.name], flat.field(f.name)) if f.name in new else flat.field(f.name) for f in flat.items.type]
    items = pa.StructArray.from_arrays(fields, fields=list(flat.items.type), mask=flat.items.is_null())
    rows = set_column(rows, column, flat.rebuild(items))
    left = np.bincount(flat.parents[before & ~hit], minlength=len(rows))
    first = flat.first(hit)
    emptied = (left == 0) & (first >= 0)
    own: dict[str, Any] = {name: _first(v, first) for name, v in new.items() if name != "drop"}
    return drop_rows(rows, emptied, step, **own)


def _first(value: object, first: np.ndarray) -> object:
    return value[np.maximum(first, 0)] if isinstance(value, np.ndarray) else value


def set_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return the rows with one column replaced or added."""
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, values)
    return rows.append_column(name, values)


def _where(hit: np.ndarray, new: object, old: pa.Array) -> pa.Array:
    if isinstance(new, np.ndarray):  # NaN and None become null, an integer that float64 does not hold the nearest that it does
        new = pa.array(new, from_pandas=True).cast(old.type, safe=False)
    else:
        new = pa.scalar(float(new) if isinstance(new, int) else new, old.type)
    return pc.if_else(pa.array(hit), new, old)


def _numpy(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def numbers(array: pa.Array) -> np.ndarray:
    """Return an Arrow array of numbers as float64, null as NaN: every comparison with NaN is false.

    An integer beyond 2**53 becomes the nearest number that float64 holds.
    """
    return np.asarray(pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
