"""The kinds of values in the JSON of samples, and the Arrow types of columns that hold them without a change."""

from __future__ import annotations

import functools
import json
from typing import Any

import pyarrow as pa

# A kind is one of these names, or "list " and the kind of the items.
NULL, BOOLEAN, INTEGER, LONG, FLOAT, STRING, JSON = "null", "boolean", "integer", "long", "float", "string", "json"
LIST = "list "
EXACT = 1 << 53  # a float64 holds all integers up to this
_TYPES = {NULL: pa.string(), BOOLEAN: pa.bool_(), INTEGER: pa.int64(), LONG: pa.int64(), FLOAT: pa.float64()}
_TYPES |= {STRING: pa.string(), JSON: pa.json_()}


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value. LONG is an integer that a float64 may not hold."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER if abs(value) <= EXACT else LONG if -(1 << 63) <= value < 1 << 63 else JSON
    if isinstance(value, float):
        return FLOAT
    if isinstance(value, str):
        return STRING
    return _list_of(functools.reduce(merged, map(kind_of, value), NULL)) if isinstance(value, list) else JSON


def merged(one: str, other: str) -> str:
    """Return the kind of a column with values of two kinds. It is JSON if no other kind holds both."""
    if one == other or NULL in (one, other):
        return other if one == NULL else one
    if one.startswith(LIST) and other.startswith(LIST):
        return _list_of(merged(one.removeprefix(LIST), other.removeprefix(LIST)))
    numbers = {one, other}
    return FLOAT if numbers == {INTEGER, FLOAT} else LONG if numbers == {INTEGER, LONG} else JSON


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type of a column. A column of JSON is text with the type `arrow.json`."""
    return pa.list_(arrow_type(kind.removeprefix(LIST))) if kind.startswith(LIST) else _TYPES[kind]


def cell(value: Any, kind: str) -> Any:
    """Return a JSON value as the value of a column of this kind."""
    return json.dumps(value, ensure_ascii=False) if kind == JSON and value is not None else value


def _list_of(kind: str) -> str:
    return JSON if kind == JSON else LIST + kind
