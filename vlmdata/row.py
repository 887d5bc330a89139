"""The schema of a row, and functions that read and reject rows, images and texts.

During a build, each record is a row of an Arrow table. A row has two aligned lists, `images` and `texts`. At each position
one of the two is null, as in OBELICS. A caption pair is a document with one image and one text; further captions are
alternatives of that text. A text comes from the source; `origins` names the step that wrote an alternative. A conversation
also has `roles`, and may have `turns` and `tools`.

Positions never change: a rejected image, text or row stays in place with `drop` set, and only packing leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

VERDICT = [
    pa.field("drop", pa.string()),  # name of the step that rejected the row or item; null if none did
    pa.field("reason", pa.string()),  # http_404, min_side ...
    pa.field("value", pa.float64()),  # the measured value
    pa.field("threshold", pa.float64()),  # the limit that the value was compared with
]

IMAGE = pa.struct(
    [
        pa.field("url", pa.string()),
        pa.field("alt", pa.string()),
        pa.field("caption", pa.string()),  # caption of the enclosing figure, if any; `texts` may hold the same words
        pa.field("rendered_width", pa.int32()),  # pixels, as requested by the page
        pa.field("rendered_height", pa.int32()),
        pa.field("time_s", pa.float64()),  # time of a video frame
        pa.field("boxes", pa.list_(pa.list_(pa.float64(), 4))),  # x0, y0, x1, y1 in pixels; every resize scales them
        pa.field("box_labels", pa.list_(pa.string())),  # aligned with `boxes`: what is in each, or null; null: nothing is known
        # aligned with `boxes`: each box as fractions of the upright original's width and height; no crop cuts or removes it
        pa.field("original_boxes", pa.list_(pa.list_(pa.float64(), 4))),
        # x0, y0, x1, y1: the part of the upright original that the stored image shows, as fractions of the original. It reaches
        # below 0 or above 1 where the image has a border. null: the image shows the whole original, or its part is not known
        pa.field("view", pa.list_(pa.float64(), 4)),
        pa.field("data", pa.binary()),  # encoded bytes, if the source holds them inline; null once they are in a blob
        pa.field("blob", pa.string()),  # file that holds the encoded bytes, in work/ or in the source
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("format", pa.string()),  # jpeg, png, webp
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("original_format", pa.string()),  # format as fetched; `format` is the format as stored
        pa.field("sha256", pa.string()),  # SHA-256 of the bytes as fetched, in hex
        pa.field("phash", pa.uint64()),  # perceptual hash of the pixels as stored
        *VERDICT,
    ]
)

TEXT = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("alternatives", pa.list_(pa.string())),
        # aligned with `alternatives`: name of the step that wrote each, null for one from the source; null: all from the source
        pa.field("origins", pa.list_(pa.string())),
        pa.field("grounding", pa.string()),  # JSON: which words of `text` stand for which boxes; see grounding/spans.py
        *VERDICT,
    ]
)

ROW = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("url", pa.string()),  # address of the page; null for a caption pair
        pa.field("images", pa.list_(IMAGE)),
        pa.field("texts", pa.list_(TEXT)),
        pa.field("roles", pa.list_(pa.string())),  # user, assistant, system, tool; null if the row is not a conversation
        # One value per position: null or a JSON object. `kind` is reasoning, or tool_call if the text is JSON with name,
        # arguments and id. The first position of a message may have `train`, `name`, `tool_call_id`, and `begins` (true if the
        # message before has the same role).
        pa.field("turns", pa.list_(pa.string())),
        pa.field("tools", pa.string()),  # functions that a conversation may call, as a JSON list of their schemas
        # for each position of `images`, the hash (hex) that the source states for the fetched bytes, or null
        pa.field("stated_hashes", pa.list_(pa.string())),
        pa.field("extra", pa.string()),  # JSON object of source columns that this schema lacks; they are copied into the sample
        # position in the source if the row is dropped or has no url: "a.tar, byte 1536", "b.jsonl, line 17", "c.csv, row 9"
        pa.field("place", pa.string()),
        pa.field("problem", pa.string()),  # what is wrong at `place`, or the file to which the row refers
        *VERDICT,
        pa.field("cluster", pa.string()),  # key of the row that represents this row's duplicates
    ]
)


def conform(table: pa.Table) -> pa.Table:
    """Return the table with all columns of ROW, the schema of a row, in the order of ROW. Other columns follow.

    Columns and fields that the table lacks are added as null.
    """
    columns = {}
    for field in ROW:
        if field.name in table.column_names:
            columns[field.name] = conform_array(table[field.name].combine_chunks(), field.type)
        else:
            columns[field.name] = pa.nulls(len(table), field.type)
    for name in table.column_names:
        columns.setdefault(name, table[name].combine_chunks())
    return pa.table(columns)


def conform_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return an array with the type `kind`. Fields that its structs lack are added as null, also inside lists."""
    if array.type == kind:
        return array
    if pa.types.is_list(kind) and pa.types.is_list(array.type):
        values = conform_array(array.values, kind.value_type)
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(array.offsets, values, mask=mask)
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        # `flatten` and not `field`: below a null struct, a list is empty, and only null becomes a list of a fixed size
        stored = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        fields = [
            conform_array(stored[field.name], field.type) if field.name in stored else pa.nulls(len(array), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    return array.cast(kind)


@dataclass(frozen=True)
class Flat:
    """A flattened list column. `items[i]` belongs to row `parents[i]`. Row r has `items[offsets[r] : offsets[r + 1]]`."""

    items: pa.StructArray
    parents: np.ndarray
    offsets: pa.Array

    def field(self, name: str) -> pa.Array:
        """Return one field of every item, with null at empty positions."""
        return pc.struct_field(self.items, name)

    def alive(self) -> np.ndarray:
        """Return a bool per position: true if it holds an item that no step has rejected."""
        return _numpy(pc.and_(self.items.is_valid(), self.field("drop").is_null()))

    def first(self, chosen: np.ndarray) -> np.ndarray:
        """Return for each row the index in `items` of the row's first chosen item, or -1 if it has none.

        `chosen` has a bool per item.
        """
        first = np.full(len(self.offsets) - 1, -1)
        where = np.flatnonzero(chosen)[::-1]  # reversed: the first position of a row is written last, so it stays
        first[self.parents[where]] = where
        return first

    def rebuild(self, items: pa.Array) -> pa.ListArray:
        """Return a list column with the same offsets. Its lists hold `items`, one item per position."""
        return pa.ListArray.from_arrays(self.offsets, items)


def flatten(rows: pa.Table, column: str) -> Flat:
    """Flatten `images`, `texts` or a list column that is aligned with one of them. A null list counts as an empty list."""
    array = in_one(rows[column])
    if array.null_count:
        array = pc.fill_null(array, pa.scalar([], array.type))
    items = array.flatten()
    lengths = np.asarray(pc.list_value_length(array), dtype=np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return Flat(items, np.repeat(np.arange(len(array)), lengths), offsets)


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array. Unlike `combine_chunks`, it copies only if there are several chunks."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def aligned(rows: pa.Table, column: str, like: str) -> np.ndarray:
    """Return a measured list column as float64: one value per position of the column `like`, with NaN for missing values.

    `like` is "images" or "texts".
    """
    flat = flatten(rows, like)
    values = np.full(len(flat.items), np.nan)
    has = numbers(pc.list_value_length(in_one(rows[column]))) > 0
    values[has[flat.parents]] = numbers(in_one(rows[column]).flatten())
    return values


def aligned_items(rows: pa.Table, column: str, like: str) -> pa.Array:
    """Return a measured list column of any type as one value per position of the column `like`, with null for missing values.

    A row that an earlier step rejected has no list, and a list of another length than the row's positions counts as missing.
    """
    flat, own = flatten(rows, like), flatten(rows, column)
    lengths, positions = (np.diff(one.offsets.to_numpy()) for one in (own, flat))
    has = lengths == positions
    take = np.full(len(flat.items), -1)
    take[has[flat.parents]] = np.flatnonzero(has[own.parents])
    return own.items.take(pa.array(take, mask=take < 0))


def alive(rows: pa.Table) -> np.ndarray:
    """Return a bool per row: true if no step has rejected the row."""
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
    """Reject the rows where `bad` (a bool per row) is true, and return all rows. Already rejected rows stay as they are.

    `reason`, `value` and `threshold` are stored in the rejected rows. Each is one value, or an array with a value per row.
    """
    hit = bad & alive(rows)
    if not hit.any():
        return rows
    for name, new in zip(("drop", "reason", "value", "threshold"), (step, reason, value, threshold), strict=True):
        rows = set_column(rows, name, _where(hit, new, in_one(rows[name])))
    return rows


def drop_images(rows: pa.Table, bad: np.ndarray, step: str, **verdict: object) -> pa.Table:
    """Reject the images where `bad` is true, and return all rows.

    `verdict` holds the reason, value and threshold, as in `drop_rows`. `bad` and each array in `verdict` have one value per
    position of the flattened `images`. If a row loses its last image, the row is rejected too, with the verdict of the first
    image that it loses in this call.
    """
    return _drop_items(rows, "images", bad, step, verdict)


def drop_texts(rows: pa.Table, bad: np.ndarray, step: str, **verdict: object) -> pa.Table:
    """Reject texts in the same way as `drop_images` rejects images. If a row loses its last text, it is rejected too."""
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


def keep_verdicts(images: pa.Array, rows: pa.Table) -> pa.Array:
    """Return the column `images` as a step measured it, with the images that `rows` has as rejected in place of its own.

    A step measures only images that are not rejected, so an image in a stored column may have a verdict of an earlier run.
    """
    now, then = flatten(rows, "images"), flatten(pa.table({"images": images}), "images")
    rejected = pc.and_(now.items.is_valid(), now.field("drop").is_valid())
    if not pc.any(rejected).as_py() or now.items.equals(then.items):
        return images
    return then.rebuild(pc.if_else(rejected, now.items, then.items))


def with_facts(images: Flat, changed: Mapping[int, Mapping[str, Any]]) -> pa.ListArray:
    """Return the column `images` with new values of some fields. `changed` has the position among all items and the fields."""
    arrays = []
    for field in IMAGE:
        array = images.field(field.name)
        new = {at: facts[field.name] for at, facts in changed.items() if field.name in facts}
        if new:
            values = array.to_pylist()
            for at, value in new.items():
                values[at] = value
            array = pa.array(values, field.type)
        arrays.append(array)
    return images.rebuild(pa.StructArray.from_arrays(arrays, fields=list(IMAGE), mask=images.items.is_null()))


def set_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return the rows with one column replaced or added."""
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, values)
    return rows.append_column(name, values)


def _where(hit: np.ndarray, new: object, old: pa.Array) -> pa.Array:
    if isinstance(new, np.ndarray):  # NaN and None become null; a large integer becomes the nearest float64
        new = pa.array(new, from_pandas=True).cast(old.type, safe=False)
    else:
        new = pa.scalar(float(new) if isinstance(new, int) else new, old.type)
    return pc.if_else(pa.array(hit), new, old)


def _numpy(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def numbers(array: pa.Array) -> np.ndarray:
    """Return an Arrow array of numbers as float64, with NaN for null. Comparisons with NaN are false.

    An integer above 2**53 becomes the nearest float64.
    """
    return np.asarray(pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
