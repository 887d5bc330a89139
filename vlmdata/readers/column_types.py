"""Check that the types of columns can hold what a recipe says they hold, before a row is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.readable import visible
from vlmdata.readers.dotted_paths import NO_TEXT, resolve, stored_type, value_at
from vlmdata.step import RecipeError

SHOWN = 100  # most characters of a type in a message; a struct names all its fields

LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)


@dataclass(frozen=True)
class Content:
    """What a column holds: `what`, for messages, and whether a type can hold it. `fix` is the advice for a wrong column."""

    what: str
    can_be: Callable[[pa.DataType], bool]
    in_json: Callable[[pa.DataType], bool] | None = None  # the same for values of JSON, if they are read in another way
    is_needed: bool = False  # a file in which no row has a value is refused if the type is wrong
    fix: str = "Name another column, or correct this file"


def check_parquet(path: str, file: pq.ParquetFile, contents: Mapping[str, Content]) -> None:
    """Do the same as `check_types` for a file of Parquet, but pass over columns without a value.

    The type of such a column says nothing: pandas writes fractions for a column in which all values are missing.
    """
    schema = file.schema_arrow
    for name, content in contents.items():
        try:
            check_types(path, schema, {name: content})
        except RecipeError:
            if file.metadata.num_rows and (content.is_needed or _has_values(file, name)):
                raise


def _has_values(file: pq.ParquetFile, name: str) -> bool:
    """Return whether a column, or one in which a dotted path begins, may have a value by the statistics of the file."""
    found = resolve(name, file.schema_arrow.names)
    top = found[0] if found else name
    facts = file.metadata
    for group in range(facts.num_row_groups):
        for number in range(facts.num_columns):
            chunk = facts.row_group(group).column(number)
            if chunk.path_in_schema == top or chunk.path_in_schema.startswith(f"{top}."):
                counts = chunk.statistics
                if counts is None or not counts.has_null_count or counts.null_count < chunk.num_values:
                    return True
    return False


def check_types(path: str, schema: pa.Schema, contents: Mapping[str, Content]) -> None:
    """Raise RecipeError if a column, or a field at a dotted path, has a type that cannot hold its content.

    A name that the schema lacks is passed over.
    """
    for name, content in contents.items():
        kind = type_at(schema, name)
        if kind is not None and not content.can_be(kind):
            shown = visible(str(kind), SHOWN)
            raise RecipeError(
                f"{path}: the column '{name}' cannot be read: the values are {shown}, not {content.what}. {content.fix}"
            )


def check_values(path: str, records: Iterable[Any], contents: Mapping[str, Content]) -> None:
    """Raise RecipeError if none of the values of a column, in the first records of JSON, can be its content.

    Values of several types are passed over, because only some of the rows would be dropped, and so are empty and false values.
    """
    objects = [record for record in records if isinstance(record, dict)]
    for name, content in contents.items():
        try:
            kind = pa.array([value_at(record, name, NO_TEXT) or None for record in objects]).type
        except (ValueError, TypeError, OverflowError, NotImplementedError):  # several types, or a number of 20 digits
            continue
        if is_any_list(kind) and pa.types.is_null(kind.value_type):  # only empty lists
            continue
        check_types(path, pa.schema([(name, kind)]), {name: replace(content, can_be=content.in_json or content.can_be)})


def type_at(schema: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column, or of the values at a dotted path, or None if only the values show it (JSON, maps).

    Within a list of structs, it is the type of the field of one struct.
    """
    found = resolve(name, schema.names)
    if found is None:
        return None
    kind: pa.DataType = next(field.type for field in schema if field.name == found[0])
    path = found[1]
    while True:
        if getattr(kind, "extension_name", "") == "arrow.json":
            return None
        kind = stored_type(kind)
        if not path:
            return kind
        if pa.types.is_struct(kind):
            step = resolve(".".join(path), [field.name for field in kind])
            if step is None:
                return None
            kind, path = kind.field(step[0]).type, step[1]
        elif is_any_list(kind):
            kind = kind.value_type
        else:
            return None


def is_any_list(kind: pa.DataType) -> bool:
    """Say whether a type is any kind of list, or a view of one."""
    return any(holds(kind) for holds in LISTS)


def _is_text(kind: pa.DataType) -> bool:
    """Say whether values are texts, bytes or always null."""
    kind = stored_type(kind)
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_null(kind) or any(holds(kind) for holds in (*TEXTS, *BYTES))


def _is_string(kind: pa.DataType) -> bool:
    kind = stored_type(kind)
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return pa.types.is_null(kind) or any(holds(kind) for holds in TEXTS)


def _is_caption(kind: pa.DataType) -> bool:
    """Say whether values are texts, numbers, or lists of these. A list of fractions is an embedding."""
    if not is_any_list(kind):
        return _is_text(kind) or not (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType))
    inner = stored_type(kind.value_type)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):  # views are read as values of JSON
        return _is_caption_in_json(kind)
    return not is_any_list(inner) and not pa.types.is_floating(inner) and _is_caption(inner)


def _is_caption_in_json(kind: pa.DataType) -> bool:
    """Say the same about values of JSON, which may also be lists of lists."""
    inner = stored_type(kind.value_type) if is_any_list(kind) else kind
    item = stored_type(inner.value_type) if is_any_list(inner) else inner
    return _is_caption(item) and not is_any_list(item) and (item == kind or not pa.types.is_floating(item))


def _is_image(kind: pa.DataType) -> bool:
    kind = stored_type(kind.value_type if is_any_list(kind) else kind)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_text(kind.field("bytes").type)
    return _is_text(kind)


def _is_size(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_size(kind.value_type)
    is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return _is_text(kind) or any(holds(kind) for holds in is_number)


def _is_boxes(kind: pa.DataType) -> bool:
    if not is_any_list(kind):
        return _is_text(kind)
    inner = stored_type(kind.value_type)
    return is_any_list(inner) or pa.types.is_null(inner)


def _is_texts(kind: pa.DataType) -> bool:
    return _is_string(kind.value_type) if is_any_list(kind) else _is_string(kind)


def _is_images(kind: pa.DataType) -> bool:
    inner = stored_type(kind.value_type) if is_any_list(kind) else kind
    is_struct = is_any_list(kind) and pa.types.is_struct(inner) and inner.get_field_index("bytes") >= 0
    return is_struct or _is_string(inner)


def _is_turns(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # a struct of lists, as old versions of `datasets` wrote lists of structs
        return all(is_any_list(stored_type(field.type)) or pa.types.is_null(field.type) for field in kind)
    if not is_any_list(kind):
        return _is_string(kind)
    inner = stored_type(kind.value_type)
    return pa.types.is_struct(inner) or pa.types.is_null(inner)


def _is_names(kind: pa.DataType) -> bool:
    inner = stored_type(kind.value_type if is_any_list(kind) else kind)
    return _is_text(inner) or pa.types.is_integer(inner)


ADDRESS = Content("text", _is_text, fix="Name a column of addresses, or correct this file", is_needed=True)
CAPTION = Content(
    "text",
    _is_caption,
    _is_caption_in_json,
    fix="Name a column of texts or lists of texts, or a field with dots, such as `caption.en`",
)
IMAGE = Content("bytes or base64", _is_image)
SIZE = Content("numbers", _is_size)
BOXES = Content("lists of [x0, y0, x1, y1]", _is_boxes)
LABELS = Content("lists of texts", _is_texts)
HASH = Content("hashes as text or bytes", _is_text)
FILE_NAME = Content("names of files", _is_names)
PARAGRAPHS = Content("lists of texts", _is_texts, fix="Correct this file, or leave it out of source.path")
IMAGES = Content("lists of addresses or of images", _is_images, fix="Correct this file, or leave it out of source.path")
TURNS = Content("lists of turns", _is_turns, fix="Correct this file, or leave it out of source.path")
