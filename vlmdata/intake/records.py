"""JSON, JSON lines and lines of text as batches of plain records, read as a stream."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from vlmdata.intake.delimited import Chained, wide_encoding
from vlmdata.intake.opened import Damage

READ = 1 << 20
_DECODER = json.JSONDecoder()
_BETWEEN = " \t\r\n,"


class Bad(tuple):
    """A record that cannot be read: (reason, its text)."""


Batch = tuple[list[dict[str, Any]], list[tuple[str, str]]]


def batches(file: IO[bytes], kind: str, encoding: str, rows: int) -> Iterator[Batch]:
    """Yield up to `rows` records at a time, each time with the bad ones met among them."""
    good: list[dict[str, Any]] = []
    bad: list[tuple[str, str]] = []
    for item in items(file, kind, encoding):
        if isinstance(item, dict):
            good.append(item)
        else:
            bad.append((item[0], item[1]))
        if len(good) + len(bad) >= rows:
            yield good, bad
            good, bad = [], []
    if good or bad:
        yield good, bad


def items(file: IO[bytes], kind: str, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    """Yield the records of a `json`, `jsonl` or `txt` file; a line of text is the record {"line": ...}."""
    head = file.read(READ)
    wide = wide_encoding(head, encoding)
    encoding = wide or ("utf-8-sig" if head.startswith(codecs.BOM_UTF8) else encoding)
    stream: Any = Chained(head, file)
    if kind == "json":
        yield from _values(stream, encoding)
    elif wide:
        for line in _lines(_InUtf8(stream, wide)):
            yield from _line(line, kind, "utf-8")
    else:
        for line in _lines(stream):
            yield from _line(line, kind, encoding)


class _InUtf8:
    """A stream of bytes as UTF-8, for its lines end at \\n alone: those of a decoder also do where JSON may hold U+2028."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._text = codecs.getreader(encoding)(stream, "replace")

    def read(self, size: int) -> bytes:
        return self._text.read(size).encode()


def _lines(stream: Any) -> Iterator[bytes]:
    left = b""
    while block := stream.read(READ):
        *lines, left = (left + block).split(b"\n")
        yield from lines
    yield left


def _line(line: bytes, kind: str, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    if not line.strip():
        return
    try:
        text = line.decode(encoding).strip()
    except UnicodeDecodeError:
        yield Bad(("bad_encoding", line.decode(encoding, "replace").strip()))
        return
    yield {"line": text} if kind == "txt" else _record(text)


def _record(text: str) -> dict[str, Any] | Bad:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else Bad(("bad_record", text))


def _values(stream: Any, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    """Yield the objects of an array, of objects one after another, or of one object of columns, as pandas writes it."""
    text = codecs.getreader(encoding)(stream, "replace")
    buffer = text.read(READ).lstrip()
    is_array = buffer.startswith("[")
    if not is_array and not buffer.startswith("{"):
        raise Damage("a JSON list is an array of objects, objects one after another, or one object of columns")
    position = int(is_array)
    first: Any = None
    count = 0
    while True:
        while position < len(buffer) and buffer[position] in _BETWEEN:
            position += 1
        ended = position < len(buffer) and buffer[position] == "]"
        try:
            value, end = (None, -1) if ended or position == len(buffer) else _DECODER.raw_decode(buffer, position)
        except (ValueError, RecursionError) as error:
            value, end, wrong = None, -1, error
        if end < 0 or end == len(buffer):  # perhaps not whole: a number or the array may go on
            more = "" if ended else text.read(max(READ, len(buffer) - position))
            if more:
                buffer, position = buffer[position:] + more, 0
                continue
            if end < 0 and not ended and position < len(buffer):
                raise Damage(f"record {count + 1} is no JSON: {wrong}")
            if end < 0 and is_array and not ended:
                raise Damage(f"the JSON array ends after {count} records without ']'")
            if end < 0:
                if (buffer[position + 1 :] + text.read(READ)).strip():
                    raise Damage(f"something follows the JSON array of {count} records")
                break
        position = end
        count += 1
        if count == 1 and not is_array:
            first = value  # it may hold columns
            continue
        if count == 2 and not is_array:
            yield first
        yield value if isinstance(value, dict) else Bad(("bad_record", json.dumps(value)))
    if count == 1 and not is_array:
        yield from _transposed(first)


def _transposed(value: dict[str, Any]) -> Iterator[dict[str, Any] | Bad]:
    """Turn {"url": [..], "caption": [..]} or {"url": {"0": ..}, ..} into records; any other object is one record."""
    columns = list(value.values())
    if columns and all(isinstance(column, dict) for column in columns):
        indices = dict.fromkeys(index for column in columns for index in column)
        yield from ({name: column.get(index) for name, column in value.items()} for index in indices)
    elif columns and all(isinstance(column, list) for column in columns) and len({len(c) for c in columns}) == 1:
        yield from (dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True))
    else:
        yield value
