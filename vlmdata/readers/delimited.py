"""Read CSV and TSV as Arrow tables of bytes, so that a wrong encoding or a broken row loses only that row."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from vlmdata.readers.as_utf8 import AsUtf8, InUtf8, original_bytes
from vlmdata.readers.open_file import Damage
from vlmdata.readers.plain_rows import Bad
from vlmdata.readers.whole_rows import LONGEST, READ, WholeRows
from vlmdata.sizes import noun
from vlmdata.untrusted import shown

HEAD = 1 << 16  # bytes read to find a header
BLANK = 1 << 20  # bytes of white space allowed before and after the header
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # first, as UTF-32's marks begin with UTF-16's
WIDE |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_WHITE = b"\0\t\n\r "  # \0 is part of white space in UTF-16 and UTF-32
csv.field_size_limit(8 << 20)  # process-wide limit of the csv module: a header may have a long field
_FIRST_LINE = re.compile(rb"[^\r\n]*")


def header(file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str]) -> list[str] | None:
    """Return the column names: `names` if given, otherwise the fields of the first line. Return None if the file has no row.

    If a name occurs twice, the second becomes `name.1`, as in pandas. If two names are empty, the second becomes `.1`. Raises
    Damage if the first line is not a header.
    """
    head = beginning(file)
    wide = wide_encoding(head, encoding)
    if not _holds_rows(head, wide, has_header=not names):
        return None
    if names:
        return _distinct(names)
    if wide:
        text = re.split("[\r\n]", head.decode(wide, "ignore"), maxsplit=1)[0]
    else:
        try:
            text = re.split(b"[\r\n]", head, maxsplit=1)[0].decode(encoding)
        except UnicodeDecodeError as error:
            raise Damage(f"the header is not in {encoding} ({error.reason}). Set `encoding:`") from None
    text = text.strip("\ufeff").replace("\0", "")  # Arrow cuts a name at \0
    if not text.strip():
        raise Damage("the first line is empty, so there is no header. Set `columns:`")
    return _distinct(next(csv.reader([text], delimiter=_delimiter(kind, delimiter))))


def odd_header(names: Sequence[str]) -> str:
    """Return what to do if column names are joined by another delimiter, or are values, as a sentence. Otherwise return ""."""
    if len(names) == 1 and (mark := next((one for one in ";\t|" if one in names[0]), None)):
        fix = f"set `delimiter: {json.dumps(mark)}` in url_list, or write the list with commas"
        return f" Its only column is {shown(names[0])}. If {mark!r} separates its columns, {fix}"
    if value := next((name for name in names if name.startswith(("http://", "https://"))), None):
        fix = "add one, or name the columns in url_list: `columns: [url, caption]`"
        return f" Its first line holds {shown(value)}. If the list has no header, {fix}"
    return ""


def beginning(file: IO[bytes]) -> bytes:
    """Return the first 64 KiB of a stream, or the whole stream if it is shorter.

    If no second line begins within 64 KiB, return up to 1 MiB.
    """
    head = b""
    room = HEAD
    while block := file.read(room - len(head)):
        head += block
        if len(head) == room < BLANK and not _FIRST_LINE.sub(b"", head.lstrip(_WHITE), count=1).strip(_WHITE):
            room += HEAD
    return head


def _holds_rows(head: bytes, wide: str | None, *, has_header: bool) -> bool:
    """Say whether a file that begins with `head` has a row. `wide` is the result of `wide_encoding`.

    A file without a row ends within `head` and holds only a header and white space.
    """
    text = plain_text(head, wide)
    if not text.strip():
        return len(head) == BLANK
    return not has_header or len(head) == BLANK or bool(_FIRST_LINE.sub(b"", text, count=1).strip())


def plain_text(head: bytes, wide: str | None) -> bytes:
    """Return `head` without its byte order mark. If `wide` is given, decode `head` from this encoding and encode it as UTF-8.

    `wide` is UTF-16 or UTF-32, or None for any other encoding.
    """
    return (head.decode(wide, "ignore").encode() if wide else head).removeprefix(codecs.BOM_UTF8)


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        others = (f"{name}.{number}" for number in itertools.count(1))
        found.append(name if name not in found else next(other for other in others if other not in (*found, *names)))
    return found


def wide_encoding(head: bytes, encoding: str) -> str | None:
    """Return the UTF-16 or UTF-32 encoding that the byte order mark or the recipe states, or None for any other encoding."""
    marked = next((name for bom, name in WIDE.items() if head.startswith(bom)), None)
    return marked or (encoding if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) else None)


def tables(
    file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str], quoted: bool | None
) -> Iterator[tuple[pa.Table, list[Bad]]]:
    """Yield tables of binary columns, each with a list of the rows that were left out because they cannot be read.

    Such a row has too many or too few fields, has an unclosed quote, or is too long. Empty lines are skipped.
    If `quoted` is None, quotes enclose fields in CSV, but are plain characters in TSV, as in Conceptual Captions.
    For a file in UTF-16 or UTF-32 the columns are strings, not binary. A string holds invalid UTF-8 where bytes of the file
    cannot be decoded.
    """
    odd: list[pacsv.InvalidRow] = []

    def skip(row: pacsv.InvalidRow) -> str:
        odd.append(row)
        return "skip"

    columns, rest, written, wide = _columns(file, kind, encoding, delimiter, names)
    if columns is None:
        return
    quotes = kind == "csv" if quoted is None else quoted
    text = AsUtf8(rest)  # without AsUtf8, Arrow fails on a row with too many fields and a byte that is not UTF-8
    rows = WholeRows(text, _delimiter(kind, delimiter), len(columns), quoted=quotes)
    options = _options(columns, _delimiter(kind, delimiter), quotes, has_header=not names)
    options["parse_options"].invalid_row_handler = skip
    seen = int(not names)
    reader = pacsv.open_csv(pa.PythonFile(rows, "r"), **options)
    try:
        for batch in reader:
            table = _original_table(pa.table(batch)) if text.is_marked else pa.table(batch)
            bad = [_bad(row, written, rows, bool(names)) for row in odd]
            seen += len(table) + len(odd)
            rows.line(seen)  # forgets the earlier rows
            odd.clear()
            yield _as_strings(table) if wide else table, bad
    finally:  # Arrow reads ahead in a thread, which would wait for ever if it still read when the interpreter exits
        rows.stop()
        with contextlib.suppress(pa.ArrowException):
            for _ in reader:
                pass
    if odd:
        none = pa.table({name: pa.array([], pa.binary()) for name in columns})
        yield none, [_bad(row, written, rows, bool(names)) for row in odd]


def _options(columns: list[str], delimiter: str, quotes: bool, *, has_header: bool) -> dict[str, Any]:
    """Return Arrow's options. Columns are binary. The block size is so large that Arrow never splits a block of `WholeRows`."""
    kinds = dict.fromkeys(columns, pa.binary())
    most = LONGEST + 2 * READ
    return {
        "read_options": pacsv.ReadOptions(use_threads=False, block_size=most, column_names=columns, skip_rows=int(has_header)),
        "parse_options": pacsv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quotes else False, newlines_in_values=quotes
        ),
        "convert_options": pacsv.ConvertOptions(check_utf8=False, strings_can_be_null=False, column_types=kinds),
    }


def _bad(row: pacsv.InvalidRow, written: str, rows: WholeRows, has_names: bool) -> Bad:
    number = row.number - (not has_names)  # Arrow counts the header
    if lost := rows.lost.pop(row.number, None):
        return Bad("bad_record", original_bytes(lost.text).decode(written, "replace"), lost.problem, lost.line, number)
    text = original_bytes(row.text.encode()).decode(written, "replace")
    fields = f"{row.actual_columns} {noun(row.actual_columns, 'field')}"
    columns = f"{noun(row.expected_columns, 'is', 'are')} {row.expected_columns} {noun(row.expected_columns, 'column')}"
    return Bad("bad_record", text, f"the row has {fields}, but there {columns}", rows.line(row.number), number)


def _as_strings(table: pa.Table) -> pa.Table:
    """Return columns of bytes as string columns. The bytes are not checked, because `decode` checks them later."""
    views = [[chunk.view(pa.string()) for chunk in column.chunks] for column in table.columns]
    return pa.table([pa.chunked_array(chunks, pa.string()) for chunks in views], table.column_names)


def _original_table(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.array(map(original_bytes, table[name].to_pylist()), pa.binary()) for name in table.column_names})


def _columns(
    file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str]
) -> tuple[list[str] | None, Any, str, str | None]:
    """Return (column names, the whole stream in an ASCII-compatible encoding, the name of this encoding, wide encoding).

    The names are None if the file has no row. The wide encoding is the file's encoding if it is UTF-16 or UTF-32, else None.
    """
    head = beginning(file)
    rest: Any = Chained(head, file)
    wide = wide_encoding(head, encoding)
    if wide:
        rest = InUtf8(rest, wide)
    written = "utf-8" if wide else encoding
    return header(io.BytesIO(head), kind, encoding, delimiter, names), rest, written, wide


def _delimiter(kind: str, delimiter: str) -> str:
    return delimiter or ("\t" if kind == "tsv" else ",")


class Chained(io.RawIOBase):
    """A stream that returns `head`, which was already read, and then the bytes of `rest`."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        if self.head and size >= 0:
            part, self.head = self.head[:size], self.head[size:]
            return part
        part, self.head = self.head + (self.rest.read(size) or b""), b""
        return part
