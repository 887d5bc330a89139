"""Reads the measured values and the verdicts of images, texts and rows from a range of the ledger."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.row import Flat, flatten, numbers

SIDES = {"short side": "min_side", "long side": "max_side", "aspect ratio": "max_aspect"}  # score -> parameter that limits it
WHOLE = -1  # place of a value that belongs to the whole row


class Values(NamedTuple):
    """A measured column as arrays (N,): value i belongs to the item at `place[i]` in row `row[i]`."""

    value: np.ndarray
    row: np.ndarray
    place: np.ndarray


class Verdicts(NamedTuple):
    """All rejections in a range of the ledger: of whole rows (place WHOLE) and of single images and texts.

    Rejection i is at `place[i]` of row `row[i]`, and `pairs[code[i]]` is its step and reason. No place has two rejections.
    """

    pairs: list[tuple[str, str | None]]
    code: np.ndarray
    value: np.ndarray
    threshold: np.ndarray
    row: np.ndarray
    place: np.ndarray

    def codes_at(self, row: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the code of each item's own rejection, or -1 if the item itself was not rejected."""
        if not len(self.code):
            return np.full(len(row), -1)
        keys = _ordinal(self.row, self.place)
        order = np.argsort(keys)
        wanted = _ordinal(row, place)
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        return np.where(keys[at] == wanted, self.code[at], -1)

    def fate(self, row: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return for each item the code of its rejection.

        For an item without a rejection, return the code of its row's rejection. If the row has none either, return -1.
        """
        own = self.codes_at(row, place)
        return np.where(own >= 0, own, self.codes_at(row, np.full(len(row), WHOLE)))


def item_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's items: the value type of a list column, or the column's own type for any other column."""
    return kind.value_type if _is_list(kind) else kind


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column holds numbers."""
    item = item_type(kind)
    tests = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_duration)
    return any(test(item) for test in tests)


def is_word(kind: pa.DataType) -> bool:
    """Return whether a column holds words, such as languages, or values that count as words: booleans, and years of dates."""
    item = item_type(kind)
    item = item.value_type if pa.types.is_dictionary(item) else item
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp)
    return any(test(item) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def words_of(column: pa.Array) -> pa.Array:
    """Return the values of a column of words as strings. A date becomes its year."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(kind)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        column = pc.year(column.cast(pa.timestamp("us"), safe=False))
    return column.cast(pa.string())


def flat_values(rows: pa.Table, name: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Return the values of a measured column, the row of each value, and the place of each value in its row.

    A value that belongs to a whole row has the place WHOLE. A list is left out if its length is neither the number of images
    nor the number of texts of its row.
    """
    column = rows[name].combine_chunks()
    if not _is_list(column.type):
        return column, np.arange(len(column)), np.full(len(column), WHOLE)
    lengths = numbers(pc.list_value_length(column))
    fits = (lengths == numbers(pc.list_value_length(rows["images"].combine_chunks()))) | (
        lengths == numbers(pc.list_value_length(rows["texts"].combine_chunks()))
    )
    counts = np.where(fits, lengths, 0).astype(np.int64)
    parents = np.repeat(np.arange(len(column)), counts)
    starts = np.cumsum(counts) - counts
    column = pc.if_else(pa.array(fits), column, pa.scalar(None, column.type))
    return column.flatten(), parents, np.arange(len(parents)) - starts[parents]


def values(rows: pa.Table, name: str) -> Values:
    """Return the values of the score `name`, which is a measured column of numbers or a size in SIDES, such as "short side"."""
    if name not in SIDES:
        column, row, place = flat_values(rows, name)
        column = column.cast(pa.int64()) if pa.types.is_duration(column.type) else column
        return Values(numbers(column), row, place)
    images = flatten(rows, "images")
    width, height = (numbers(images.field(f"original_{side}")) for side in ("width", "height"))
    short, long = np.minimum(width, height), np.maximum(width, height)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = {"short side": short, "long side": long, "aspect ratio": long / short}[name]
    return Values(value, images.parents, places_of(images))


def places_of(flat: Flat) -> np.ndarray:
    """Return each item's place in its row."""
    return np.arange(len(flat.items)) - np.asarray(flat.offsets)[flat.parents]


def verdicts(rows: pa.Table) -> Verdicts:
    """Return every rejection in these rows of the ledger."""
    parts = [_hits([rows[name].combine_chunks() for name in ("step", "reason", "value", "threshold")], None)]
    for column in ("images", "texts"):
        flat = flatten(rows, column)
        parts.append(_hits([flat.field(name) for name in ("drop", "reason", "value", "threshold")], flat))
    rules = [rule for part in parts for rule in part[0]]
    numbers_of: dict[tuple[str, str | None], int] = {}
    code = [numbers_of.setdefault(rule, len(numbers_of)) for rule in rules]
    rest = [np.concatenate([part[i] for part in parts]) for i in (1, 2, 3, 4)]
    return Verdicts(list(numbers_of), np.array(code, np.int64), *rest)


def _hits(fields: list[pa.Array], flat: Flat | None) -> tuple[list, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    at = np.flatnonzero(fields[0].is_valid().to_numpy(zero_copy_only=False))
    step, reason, value, threshold = (field.take(pa.array(at)) for field in fields)
    row = at if flat is None else flat.parents[at]
    place = np.full(len(at), WHOLE) if flat is None else places_of(flat)[at]
    rules = list(zip(step.to_pylist(), reason.to_pylist(), strict=True))
    return rules, numbers(value), numbers(threshold), row, place


def _ordinal(row: np.ndarray, place: np.ndarray) -> np.ndarray:
    return row.astype(np.int64) << 32 | (place.astype(np.int64) + 1)
