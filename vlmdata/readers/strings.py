"""Convert text of any type and encoding to Arrow strings, and mark the values that cannot be decoded."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.step import RecipeError
from vlmdata.text.blank import is_blank as is_blank

_MARKS = {  # the order matters: the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def decode(array: pa.Array | pa.ChunkedArray, encoding: str = "utf-8") -> tuple[pa.Array, np.ndarray]:
    """Return a text column as strings, and for each value whether it cannot be decoded.

    Such a value has U+FFFD in place of wrong bytes. Raises TypeError for a column that is neither text nor bytes.
    """
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    if pa.types.is_null(kind):
        return array.cast(pa.string()), np.zeros(len(array), bool)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    if not is_text and not any(holds(kind) for holds in is_bytes):
        raise TypeError(f"the values are {kind}, not text")
    raw = array.cast(pa.binary())
    if is_text or encoding == "utf-8":
        try:
            return raw.cast(pa.string()), np.zeros(len(raw), bool)
        except pa.ArrowInvalid:  # some value cannot be decoded: find which
            encoding = "utf-8"
    return _one_by_one(raw.to_pylist(), encoding)


def _one_by_one(values: list[bytes | None], encoding: str) -> tuple[pa.Array, np.ndarray]:
    texts: list[str | None] = []
    bad = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        try:
            texts.append(None if value is None else value.decode(encoding))
        except UnicodeDecodeError:
            bad[row] = True
            texts.append(value.decode(encoding, "replace") if value else None)
    return pa.array(texts, pa.string()), bad


def from_python(values: list[Any]) -> tuple[pa.Array, np.ndarray]:
    """Return Python values as strings, and for each value whether it is bad: not text, or text with an unpaired surrogate.

    A null value is not bad.
    """
    try:
        return pa.array(values, pa.string()), np.zeros(len(values), bool)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        texts = [clean(value) if isinstance(value, str) else None for value in values]
        bad = [text != value for text, value in zip(texts, values, strict=True)]
        return pa.array(texts, pa.string()), np.array(bad, dtype=bool)


def clean(text: str) -> str:
    """Return a text with `?` for each unpaired surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def one_line_each(texts: Iterable[object]) -> list[str]:
    """Return the distinct texts among values, each as one line without white space at its ends, in their order.

    Texts that differ only in case count as equal, and the first one stays. Blank texts and other values are left out.
    """
    found: dict[str, str] = {}
    for text in texts:
        if isinstance(text, str) and not is_blank(text):
            said = clean(" ".join(text.split()))
            found.setdefault(said.lower(), said)
    return list(found.values())


def blank_as_null(array: pa.Array) -> pa.Array:
    """Return texts without white space at both ends. Blank texts become null."""
    trimmed = pc.utf8_trim_whitespace(array)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def check_encoding(encoding: str) -> None:
    """Raise RecipeError for an encoding that Python does not support, or that does not encode text, such as `hex`."""
    try:
        b"text".decode(encoding, "ignore")
    except UnicodeError:
        return  # some encodings do not accept errors="ignore"
    except (LookupError, ValueError):
        raise RecipeError(f"encoding '{encoding}' is unknown. Use utf-8, latin-1, cp1252, gb18030, shift_jis ...") from None


def caption_text(data: bytes, encoding: str = "utf-8") -> str:
    """Return the text of a caption file. A byte order mark of UTF-8, UTF-16 or UTF-32 overrides `encoding`.

    Raises UnicodeDecodeError for bytes of another encoding, and for a null character, which shows that the bytes
    are UTF-16 without a byte order mark.
    """
    mark, encoding = next((pair for pair in _MARKS.items() if data.startswith(pair[0])), (b"", encoding))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        raise
    except UnicodeError as error:  # from the codecs `idna` and `undefined`
        raise UnicodeDecodeError(encoding, data, 0, len(data), str(error)) from None
    if "\0" in text:
        raise UnicodeDecodeError(encoding, data, max(data.find(b"\0"), 0), len(data), "it holds a null character")
    return clean(text.removeprefix("\ufeff"))  # some editors write the mark twice
