"""JSON, JSON lines and lines of text as batches of plain records, read as a stream."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from vlmdata.intake.as_utf8 import WRONG, InUtf8
from vlmdata.intake.delimited import Chained, wide_encoding
from vlmdata.intake.opened import Damage
from vlmdata.intake.rows import Bad

READ = 1 << 20
_DECODER = json.JSONDecoder()
_BETWEEN = " \t\r\n,"

Batch = tuple[list[dict[str, Any]], list[Bad]]


def batches(file: IO[bytes], kind: str, encoding: str, rows: int) -> Iterator[Batch]:
    """Yield up to `rows` records at a time, each time with the bad ones met among them."""
    good: list[dict[str, Any]] = []
    bad: list[Bad] = []
    for item in items(file, kind, encoding):
        if not isinstance(item, Bad):
            good.append(item)
        else:
            bad.append(item)
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
        for number, line in enumerate(_lines(InUtf8(stream, wide)), 1):
            yield from _line(line, number, kind, "utf-8", wide)
    else:
        for number, line in enumerate(_lines(stream), 1):
            yield from _line(line, number, kind, encoding)


def _lines(stream: Any) -> Iterator[bytes]:
    left = b""
    while block := stream.read(READ):
        *lines, left = (left + block).split(b"\n")
        yield from lines
    yield left


def _line(line: bytes, number: int, kind: str, encoding: str, written: str = "") -> Iterator[dict[str, Any] | Bad]:
    if not line.strip():
        return
    try:
        text = line.decode(encoding).strip()
    except UnicodeDecodeError:
        yield Bad("bad_encoding", line.decode(encoding, "replace").strip(), f"bytes that are not {written or encoding}", number)
        return
    if text:  # and not the mark of UTF-8 alone
        yield {"line": text} if kind == "txt" else _record(text, number)


def _record(text: str, line: int) -> dict[str, Any] | Bad:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Bad("bad_record", text, no_json(error), line)
    return value if isinstance(value, dict) else Bad("bad_record", text, "JSON, but no object", line)


def no_json(error: ValueError | RecursionError) -> str:
    """Return in words why a text is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON from character {error.pos + 1} on"
    if isinstance(error, UnicodeDecodeError):
        return f"bytes that are not UTF-8, from byte {error.start} of the record on"
    return "JSON that is nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"


def _values(stream: Any, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    """Yield the objects of an array, of objects one after another, or of one object of columns, as pandas writes it."""
    text = codecs.getreader(encoding)(stream, "vlmdata.wrong")
    buffer, line = _begun(text)
    if not buffer:
        return
    is_array = buffer.startswith("[")
    if not is_array and not buffer.startswith("{"):
        raise Damage("a JSON list is an array of objects, objects one after another, or one object of columns")
    position, counted = int(is_array), 0  # up to where `line` counts
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
                line += buffer.count("\n", counted, position)
                buffer, position, counted = buffer[position:] + more, 0, 0
                continue
            if end < 0 and not ended and position < len(buffer):
                raise Damage(f"record {count + 1} is no JSON: {wrong}")
            if end < 0:
                if is_array or ended:
                    _check_end(ended, buffer[position + 1 :] + text.read(READ), count)
                break
        count += 1
        line += buffer.count("\n", counted, position)
        raw, position, counted = buffer[position:end], end, position
        if count == 1 and not is_array:
            first, first_raw, first_line = value, raw, line  # it may hold columns
            continue
        if count == 2 and not is_array:
            yield _record_of(first, first_raw, first_line, 1, encoding)
        yield _record_of(value, raw, line, count, encoding)
    if count == 1 and not is_array:
        for row in _transposed(first):
            raw = json.dumps(row, ensure_ascii=False) if WRONG in first_raw else first_raw
            yield _record_of(row, raw, first_line, 1, encoding)


def _record_of(value: Any, raw: str, line: int, count: int, encoding: str) -> dict[str, Any] | Bad:
    """Return a record of a JSON list, or what is wrong with it. `raw` is its text."""
    if WRONG in raw:
        return Bad("bad_encoding", raw.replace(WRONG, "\ufffd"), f"bytes that are not {encoding}", line)
    if isinstance(value, dict):
        return value
    return Bad("bad_record", json.dumps(value), f"record {count} of the list is no object", line)


def _begun(text: Any) -> tuple[str, int]:
    """Return the first piece of a text that is not white space, without any before it, and the line on which it begins."""
    buffer, line = "", 1
    while not buffer and (block := text.read(READ)):
        buffer = block.lstrip("\ufeff \t\r\n")
        line += block.count("\n", 0, len(block) - len(buffer))
    return buffer, line


def _check_end(ended: bool, rest: str, count: int) -> None:
    if not ended:
        raise Damage(f"the JSON array ends after {count} records without ']'")
    if rest.strip():
        raise Damage(f"something follows the JSON array of {count} records")


def _transposed(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Turn {"url": [..], "caption": [..]} or {"url": {"0": ..}, ..} into records, {} into none; any other is one record."""
    columns = list(value.values())
    if all(isinstance(column, dict) for column in columns) and len({tuple(column) for column in columns}) < 2:
        indices = dict.fromkeys(index for column in columns for index in column)
        yield from ({name: column.get(index) for name, column in value.items()} for index in indices)
    elif columns and all(isinstance(column, list) for column in columns) and len({len(c) for c in columns}) == 1:
        yield from (dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True))
    else:
        yield value
