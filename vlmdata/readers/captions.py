"""Read an image's captions from one or several columns, as a text and its alternatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.readers import lists
from vlmdata.readers.dotted_paths import is_list
from vlmdata.readers.find_files import File
from vlmdata.readers.lists import ListFormat
from vlmdata.readers.nested import flat, listed
from vlmdata.readers.pair_rows import one_text
from vlmdata.readers.strings import clean, decode, from_python, is_blank
from vlmdata.sizes import counted
from vlmdata.step import RecipeError

HEAD = 100  # rows whose captions `check` reads


def named_columns(names: str | Sequence[str]) -> list[str]:
    """Return the column names that a recipe's parameter holds: one name or several. Empty names are left out."""
    return [name for name in ([names] if isinstance(names, str) else names) if name]


def caption_column(columns: list[Any], encoding: str = "utf-8") -> tuple[pa.Array, pa.Array | None, np.ndarray]:
    """Return each row's text (never null), each row's alternatives, and whether a caption of the row cannot be decoded.

    A column is an Arrow array of texts or lists of texts, or a list of Python values. JSON text of a list of texts counts as
    that list. The first caption that is not blank is the text, and the other distinct captions are the alternatives.
    The alternatives are None if the only column holds single texts.
    """
    columns = [_unpacked(column, encoding) for column in columns]
    if len(columns) == 1:
        simple = _plain(columns[0], encoding)
        if simple is not None:
            return pc.fill_null(simple[0], ""), None, simple[1]
    wrong = np.zeros(len(columns[0]), bool)
    gathered: list[list[str]] = [[] for _ in range(len(wrong))]
    for column in columns:
        bad = _gather(column, encoding, gathered)
        wrong |= bad
    both = [one_text(captions) for captions in gathered]
    texts = pa.array([text for text, _ in both], pa.string())
    return texts, pa.array([others for _, others in both], pa.list_(pa.string())), wrong


def without_captions(files: Sequence[File], layout: ListFormat, names: Sequence[str]) -> str | None:
    """Return a warning if none of the first 100 rows has a caption in these columns, else None.

    A possible cause is a wrong dotted path.
    """
    for file in files if names else ():
        for chunk in lists.chunks(file, layout, names, {}, rows=HEAD):
            head = [chunk.columns[name][:HEAD] for name in names]
            if count := len(head[0]):
                texts, _, wrong = caption_column(head, layout.encoding)
                return none_of(file.path, names, count) if not wrong.any() and all(map(is_blank, texts.to_pylist())) else None
    return None


def none_of(path: str, names: Sequence[str], count: int) -> str:
    """Return the warning that the first `count` rows have no caption in the columns `names`."""
    return f"{path}: none of the first {counted(count, 'row')} has a caption in {', '.join(names)}"


def _unpacked(column: Any, encoding: str) -> Any:
    """Return a column as Python values, with JSON texts of lists read as lists.

    If no text begins like a JSON list, the column is returned unchanged.
    """
    if isinstance(column, list):
        return [listed(value) for value in column]
    try:
        texts, bad = decode(column, encoding)
    except TypeError:
        return column
    if not pc.any(pc.match_substring_regex(texts, r"^\s*\[")).as_py():
        return column
    return [b"" if wrong else listed(text) for text, wrong in zip(texts.to_pylist(), bad, strict=True)]  # b"": a bad caption


def _plain(column: Any, encoding: str) -> tuple[pa.Array, np.ndarray] | None:
    """Return a column of single texts as strings and a mask of the undecodable texts, or None for a column of lists."""
    if isinstance(column, list):
        return None if any(isinstance(value, list | tuple) for value in column) else from_python(list(map(_worded, column)))
    return None if is_list(column.type) else _texts(column, encoding)


def _texts(column: pa.Array, encoding: str, *, in_lists: bool = False) -> tuple[pa.Array, np.ndarray]:
    """Return texts or numbers as strings, and a mask of those that cannot be decoded. Raises RecipeError for other types.

    With `in_lists`, fractions are refused too, because a list of them is an embedding.
    """
    try:
        return decode(column, encoding)
    except TypeError as error:
        is_nested = pa.types.is_nested(column.type)
        is_embedding = in_lists and pa.types.is_floating(column.type) and column.null_count < len(column)
        if is_embedding or is_nested or isinstance(column.type, pa.BaseExtensionType):
            near = "one of its fields with dots, such as `caption.en`, or " if is_nested and not is_list(column.type) else ""
            fix = f"Name {near}a column of texts or lists of texts"
            raise RecipeError(f"a column of captions cannot be read: {error}. {fix}") from None
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        return column.cast(pa.string()), np.zeros(len(column), bool)


def _worded(value: Any) -> Any:
    """Return a JSON number as text, or None for NaN and infinities. Return any other value unchanged."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _gather(column: Any, encoding: str, into: list[list[str]]) -> np.ndarray:
    """Append each row's captions to its list in `into`. Return a mask of the rows with a caption that cannot be decoded."""
    plain = _plain(column, encoding)
    if plain is not None:
        for row, text in zip(into, plain[0].to_pylist(), strict=True):
            if text:
                row.append(text)
        return plain[1]
    if isinstance(column, list):
        values = column
    else:
        texts, bad_items = _texts(column.flatten(), encoding, in_lists=True)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        words = texts.to_pylist()
        values = [words[ends[i] : ends[i + 1]] for i in range(len(column))]
        wrong = np.zeros(len(column), bool)
        wrong[np.repeat(np.arange(len(column)), lengths)[bad_items]] = True
    bad = np.zeros(len(values), bool) if isinstance(column, list) else wrong
    for number, (row, value) in enumerate(zip(into, values, strict=True)):
        for text in map(_worded, flat([listed(one) for one in (value if isinstance(value, list | tuple) else [value])])):
            bad[number] |= not isinstance(text, str | None)
            if isinstance(text, str):
                bad[number] |= clean(text) != text
                row.append(clean(text))
    return bad
