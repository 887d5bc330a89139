"""Read JSON, JSON lines and text lines as a stream of batches of records."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from vlmdata.readers.as_utf8 import WRONG, InUtf8
from vlmdata.readers.delimited import Chained, wide_encoding
from vlmdata.readers.open_file import Damage
from vlmdata.readers.plain_rows import Bad
from vlmdata.sizes import noun

READ = 1 << 20
_DECODER = json.JSONDecoder()
_BETWEEN = " \t\r\n,"

Batch = tuple[list[dict[str, Any]], list[Bad]]


def batches(file: IO[bytes], kind: str, encoding: str, rows: int) -> Iterator[Batch]:
    """Yield batches of up to `rows` records, each as (records that can be read, records that cannot be read)."""
    good: list[dict[str, Any]] = []
    bad: list[Bad] = []
    for number, item in enumerate(items(file, kind, encoding), 1):
        if not isinstance(item, Bad):
            good.append(item)
        else:
            bad.append(item._replace(number=number))
        if len(good) + len(bad) >= rows:
            yield good, bad
            good, bad = [], []
    if good or bad:
        yield good, bad


def items(file: IO[bytes], kind: str, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    """Yield the records of a `json`, `jsonl` or `txt` file. A line of text is the record {"line": ...}."""
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
        problem = f"the line holds bytes that are not {written or encoding}"
        yield Bad("bad_encoding", line.decode(encoding, "replace").strip(), problem, number)
        return
    if text:  # the line may have held only a byte order mark
        yield {"line": text} if kind == "txt" else _record(text, number)


def _record(text: str, line: int) -> dict[str, Any] | Bad:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Bad("bad_record", text, no_json(error), line)
    return value if isinstance(value, dict) else Bad("bad_record", text, "the record is JSON but not an object", line)


def no_json(error: ValueError | RecursionError) -> str:
    """Return a sentence that says why a record cannot be parsed as JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"the record is not valid JSON at character {error.pos + 1}"
    if isinstance(error, UnicodeDecodeError):
        return f"the record is not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    return "the JSON holds a number with too many digits"


class _Value(NamedTuple):
    """A value of a JSON list, with its text and the line where it begins."""

    value: Any
    raw: str
    line: int


def _values(stream: Any, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    """Yield the records of JSON text: an array, consecutive objects, or one object of columns, as pandas writes it."""
    text = codecs.getreader(encoding)(stream, "vlmdata.wrong")
    buffer, line = _first_block(text)
    if not buffer:
        return
    if buffer[0] not in "[{":
        raise Damage("the file must hold an array of objects, consecutive objects, or one object whose fields are columns")
    found = _parsed(text, buffer, line)
    if buffer[0] == "{":
        one_or_two = list(itertools.islice(found, 2))
        if len(one_or_two) == 1:
            yield from _rows_of(one_or_two[0], encoding)
            return
        found = itertools.chain(one_or_two, found)
    for count, one in enumerate(found, 1):
        yield _record_of(one.value, one.raw, one.line, count, encoding)


def _rows_of(only: _Value, encoding: str) -> Iterator[dict[str, Any] | Bad]:
    """Yield the records of a file that holds only one JSON object: one record, or columns as in `_transposed`."""
    for row in _transposed(only.value):
        raw = json.dumps(row, ensure_ascii=False) if WRONG in only.raw else only.raw
        yield _record_of(row, raw, only.line, 1, encoding)


def _parsed(text: Any, buffer: str, line: int) -> Iterator[_Value]:
    """Yield the values of a JSON array, or JSON values that follow each other without an array.

    `buffer` is the part of the text that was already read, and begins on line number `line`. `text` is the stream of the
    rest. Raises Damage for invalid JSON, for an array without an end, and for text after the array.
    """
    is_array = buffer.startswith("[")
    position, counted = int(is_array), 0  # `line` is the line number at the position `counted`
    count = 0
    while True:
        while position < len(buffer) and buffer[position] in _BETWEEN:
            position += 1
        has_ended = buffer.startswith("]", position)
        value, end, wrong = (None, None, None) if has_ended or position == len(buffer) else _decoded(buffer, position)
        if not has_ended and end in (None, len(buffer)):  # the value may be incomplete
            more = text.read(max(READ, len(buffer) - position))
            if more:
                line += buffer.count("\n", counted, position)
                buffer, position, counted = buffer[position:] + more, 0, 0
                continue
        if end is None:
            break
        count += 1
        line += buffer.count("\n", counted, position)
        yield _Value(value, buffer[position:end], line)
        position, counted = end, position
    if wrong is not None:
        raise Damage(f"record {count + 1} is not valid JSON: {wrong}")
    if is_array or has_ended:
        _check_end(has_ended, buffer[position + 1 :] + text.read(READ), count)


def _decoded(buffer: str, position: int) -> tuple[Any, int | None, Exception | None]:
    """Return (value, its end, None) for the JSON value at a position, or (None, None, the error)."""
    try:
        return *_DECODER.raw_decode(buffer, position), None
    except (ValueError, RecursionError) as error:
        return None, None, error


def _record_of(value: Any, raw: str, line: int, count: int, encoding: str) -> dict[str, Any] | Bad:
    """Return a value of a JSON list, or a `Bad` if it is not a valid record.

    `raw` is the value's text. `count` is the value's number in the list, from 1.
    """
    if WRONG in raw:
        return Bad("bad_encoding", raw.replace(WRONG, "\ufffd"), f"the record holds bytes that are not {encoding}", line)
    if isinstance(value, dict):
        return value
    return Bad("bad_record", json.dumps(value), f"record {count} of the list is not an object", line)


def _first_block(text: Any) -> tuple[str, int]:
    """Return the first block of `text` that is not blank, without leading white space, and the line where it begins."""
    buffer, line = "", 1
    while not buffer and (block := text.read(READ)):
        buffer = block.lstrip("\ufeff \t\r\n")
        line += block.count("\n", 0, len(block) - len(buffer))
    return buffer, line


def _check_end(ended: bool, rest: str, count: int) -> None:
    if not ended:
        raise Damage(f"the JSON array has no ']' after its {count} {noun(count, 'record')}. The file may be cut off")
    if rest.strip():
        raise Damage(f"more text follows the JSON array of {count} {noun(count, 'record')}")


def _transposed(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the records of an object of columns: {"url": [..], "caption": [..]} or {"url": {"0": ..}, ..}.

    An empty object gives no record. Any other object is a record and is yielded unchanged.
    """
    columns = list(value.values())
    if all(isinstance(column, dict) for column in columns) and len({tuple(column) for column in columns}) < 2:
        indices = dict.fromkeys(index for column in columns for index in column)
        yield from ({name: column.get(index) for name, column in value.items()} for index in indices)
    elif columns and all(isinstance(column, list) for column in columns) and len({len(c) for c in columns}) == 1:
        yield from (dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True))
    else:
        yield value
