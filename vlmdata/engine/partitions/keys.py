"""The key of a row: a hash of what the row is, never of where it stood."""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring

import numpy as np
import pyarrow as pa

from vlmdata.row import flatten

DIGITS = 24  # hex: 96 bits, so that among a billion rows two different ones meet with probability 1e-11


def content_keys(rows: pa.Table) -> list[str]:
    """Return one key for each row, equal for rows of equal content: addresses and texts, inline bytes, or a record's `id`."""
    if "id" in rows.column_names:
        return [_digest(text.encode()) for text in rows["id"].to_pylist()]
    images, texts = flatten(rows, "images"), flatten(rows, "texts")
    bodies = [_json(None if body is None else hashlib.sha256(body).hexdigest()) for body in images.field("data").to_pylist()]
    pictures = [f"[{_json(u)},{b}]" for u, b in zip(images.field("url").to_pylist(), bodies, strict=True)]
    words = [_json(text) for text in texts.field("text").to_pylist()]
    others = [_json_list(value) for value in texts.field("alternatives").to_pylist()]
    image_at, text_at = images.offsets.to_pylist(), texts.offsets.to_pylist()
    keys = []
    for row, page in enumerate(rows["url"].to_pylist()):
        i, j = slice(image_at[row], image_at[row + 1]), slice(text_at[row], text_at[row + 1])
        form = f"[{_json(page)},[{','.join(pictures[i])}],[{','.join(words[j])}],[{','.join(others[j])}]]"
        keys.append(_digest(form.encode("utf-8", "surrogatepass")))
    return keys


def _json(text: str | None) -> str:
    """Return what json.dumps(text, ensure_ascii=False) does, in a third of its time."""
    return "null" if text is None else encode_basestring(text)


def _json_list(texts: list[str] | None) -> str:
    return "null" if texts is None else f"[{','.join(map(_json, texts))}]"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGITS // 2).hexdigest()


def number_repeats(keys: list[str]) -> list[str]:
    """Give the second of identical rows the key with `_1`, the third `_2`, so that each has a key of its own."""
    seen: dict[str, int] = {}
    numbered = []
    for key in keys:
        count = seen.get(key, 0)
        seen[key] = count + 1
        numbered.append(f"{key}_{count}" if count else key)
    return numbered


def key_order(keys: list[str]) -> np.ndarray:
    """Return the order of rows by key, identical rows as they came: a fair shuffle, since keys are hashes."""
    return np.argsort(np.array(keys, dtype=f"S{DIGITS}"), kind="stable")
