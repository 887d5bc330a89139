"""Columns named by a dotted path, as `caption.en`: a field of a struct, of a JSON object or of JSON in a text."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.intake.strings import decode


def resolve(name: str, known: Collection[str]) -> tuple[str, list[str]] | None:
    """Return the column that a name means, and the fields that lead on from it; None: there is no such column.

    A column that has the dots in its own name comes first.
    """
    words = name.split(".")
    for count in range(len(words), 0, -1):
        if (head := ".".join(words[:count])) in known:
            return head, words[count:]
    return None


def names_in(kind: pa.DataType | pa.Schema, before: str = "") -> list[str]:
    """Return the columns of a schema and, by their paths, the fields of structs and of lists of structs in them."""
    found: list[str] = []
    for field in kind:
        name = before + field.name
        inner = field.type
        while _is_list(inner):
            inner = inner.value_type
        found += [name, *(names_in(inner, f"{name}.") if pa.types.is_struct(inner) else [])]
    return found


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def at(column: pa.Array, path: Sequence[str], encoding: str) -> Any:
    """Return what a path leads to in a column: an Arrow array where all on the way are structs, else plain values."""
    while path and pa.types.is_struct(column.type):
        if column.type.get_field_index(path[0]) < 0:
            return pa.nulls(len(column), pa.string())
        column, path = pc.struct_field(column, path[0]), path[1:]
    if not path:
        return column
    with contextlib.suppress(TypeError):  # lists, maps: as they are
        texts, bad = decode(column, encoding)
        column = pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), texts)
    return [reach(value, path) for value in column.to_pylist()]


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """Return what a record holds under a column's name or a dotted path, as `reach` does."""
    found = resolve(name, record)
    return None if found is None else reach(record[found[0]], found[1])


def reach(value: Any, path: Sequence[str]) -> Any:
    """Return what a path leads to in a plain value; of a list one value for each item, a single one alone. None: nowhere."""
    for number, name in enumerate(path):
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, list):
            found = [None if isinstance(one, list) else reach(one, path[number:]) for one in value]
            return found[0] if len(found) == 1 else found
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
