"""Resolve dotted column names such as `caption.en`, which name a field of a struct, of a JSON object or of JSON text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.readers.nested import plain_values
from vlmdata.readers.strings import decode

NO_TEXT = b"\xff"  # marks a value that is not text; these bytes never decode, so they count as a bad caption or address


def resolve(name: str, known: Collection[str]) -> tuple[str, list[str]] | None:
    """Return the column of a dotted name and the path of fields inside the column, or None if there is no such column.

    A column `a.b` takes precedence over the field `b` of a column `a`.
    """
    words = name.split(".")
    for count in range(len(words), 0, -1):
        if (head := ".".join(words[:count])) in known:
            return head, words[count:]
    return None


def names_in(kind: pa.DataType | pa.Schema, before: str = "") -> list[str]:
    """Return the column names of a schema, and the dotted paths of fields in structs and in lists of structs."""
    found: list[str] = []
    for field in kind:
        name = before + field.name
        inner = item_type(field.type)
        found += [name, *(names_in(inner, f"{name}.") if pa.types.is_struct(inner) else [])]
    return found


def item_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the items if `kind` is a list of any depth, or `kind` if it is not a list.

    An extension type that stores text or a nested type is replaced by its storage type.
    """
    while (inner := kind.value_type if is_list(kind) else stored_type(kind)) != kind:
        kind = inner
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Say whether a type is any kind of list."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def column_at(column: pa.Array, path: Sequence[str], encoding: str, otherwise: bytes | None = None) -> Any:
    """Return the values at a path of fields in a column.

    They are an Arrow array if the path passes only through structs, else a list of Python values. A text that cannot be decoded
    becomes `NO_TEXT`, which marks a value that is not text. `otherwise` is as in `reach`.
    """
    column, is_json = _stored(column)
    while path and pa.types.is_struct(column.type):
        if column.type.get_field_index(path[0]) < 0:
            return pa.nulls(len(column), pa.string())
        column, is_json = _stored(pc.struct_field(column, path[0]))
        path = path[1:]
    # pyarrow 26 casts list views wrongly
    is_view = pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type)
    if not path and not is_json and not is_view:
        return column
    try:
        texts, bad = decode(column, encoding)
        values, wrong = texts.to_pylist(), bad.tolist()
    except TypeError:  # lists and maps stay as they are
        values, wrong = plain_values(column)
        values = [_with_mappings(value, column.type) for value in values]
    if is_json:
        values = [value if value is None else _parsed(value, NO_TEXT) for value in values]
    return [NO_TEXT if one else reach(value, path, otherwise) for value, one in zip(values, wrong, strict=True)]


def _stored(column: pa.Array) -> tuple[pa.Array, bool]:
    """Return (column, whether its texts are JSON).

    If a column has an extension type that stores texts or nested values, the stored column is returned.
    """
    kind = stored_type(column.type)
    return (column, False) if kind == column.type else (column.storage, column.type.extension_name == "arrow.json")


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the storage type of an extension type for text or nested values. Return any other type unchanged."""
    if not isinstance(kind, pa.BaseExtensionType):
        return kind
    stored = kind.storage_type
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_nested)
    return stored if any(holds(stored) for holds in is_text) else kind


def _with_mappings(value: Any, kind: pa.DataType) -> Any:
    """Return a Python value in which each Arrow map is a dict. Arrow itself converts a map to a list of pairs.

    In the dict, the value of a repeated key is the list of all its values.
    """
    if value is None:
        return None
    if pa.types.is_map(kind):
        found: dict[str, list[Any]] = {}
        for key, item in value:
            name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
            found.setdefault(name, []).append(_with_mappings(item, kind.item_type))
        return {name: items[0] if len(items) == 1 else items for name, items in found.items()}
    if pa.types.is_struct(kind):
        return {field.name: _with_mappings(value[field.name], field.type) for field in kind}
    return [_with_mappings(one, kind.value_type) for one in value] if is_list(kind) else value


def value_at(record: Mapping[str, Any], name: str, otherwise: bytes | None = None) -> Any:
    """Return a record's value at a column name or dotted path, or None if there is none. `otherwise` is as in `reach`."""
    found = resolve(name, record)
    return None if found is None else reach(record[found[0]], found[1], otherwise)


def reach(value: Any, path: Sequence[str], otherwise: bytes | None = None) -> Any:
    """Return the value at a path of fields.

    If a value on the path is a list, the result is a list with one value for each item, or only the value if there is one item.
    A null or a missing field gives None. If the path passes through a value that is not an object, `otherwise` is returned.
    """
    while path:
        if isinstance(value, str):
            value = _parsed(value, otherwise) if value.strip() else None
        if isinstance(value, list):
            found = [otherwise if isinstance(one, list) else reach(one, path, otherwise) for one in value]
            return found[0] if len(found) == 1 else found
        if not isinstance(value, dict):
            return None if value is None else otherwise
        step = resolve(".".join(path), value)
        if step is None:
            return None
        value, path = value[step[0]], step[1]
    return value


def _parsed(text: str, otherwise: bytes | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
