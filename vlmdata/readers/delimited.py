"""CSV and TSV as Arrow tables of bytes, so that a wrong encoding or a broken row costs that row and no other."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from vlmdata.readers.as_utf8 import AsUtf8, InUtf8, as_it_was
from vlmdata.readers.open_file import Damage
from vlmdata.readers.plain_rows import Bad
from vlmdata.readers.whole_rows import LONGEST, READ, WholeRows

HEAD = 1 << 16  # bytes at the beginning that are looked through for a header
BLANK = 1 << 20  # bytes of white space that may stand before and behind it
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # first, for they begin like those of UTF-16
WIDE |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_WHITE = b"\0\t\n\r "  # also in two or four bytes a character
csv.field_size_limit(8 << 20)  # the limit of the csv module, for the whole process: a header may have a long field
_FIRST_LINE = re.compile(rb"[^\r\n]*")


def header(file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str]) -> list[str] | None:
    """Return the names of the columns: those given, or those in the first line; None where no row follows. Raises Damage.

    Where a name stands twice, as the empty one over columns without a header does, the second is `name.1`, as pandas has it.
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
            raise Damage(f"the header is not written in {encoding} ({error.reason}); say `encoding:`") from None
    text = text.strip("\ufeff").replace("\0", "")  # at which Arrow ends a name
    if not text.strip():
        raise Damage("it begins with an empty line, not with a header; say `columns:`")
    return _distinct(next(csv.reader([text], delimiter=_delimiter(kind, delimiter))))


def beginning(file: IO[bytes]) -> bytes:
    """Return the first 64 KiB of a stream, or all of a shorter one; up to 1 MiB where no second line begins before."""
    head = b""
    room = HEAD
    while block := file.read(room - len(head)):
        head += block
        if len(head) == room < BLANK and not _FIRST_LINE.sub(b"", head.lstrip(_WHITE), count=1).strip(_WHITE):
            room += HEAD
    return head


def _holds_rows(head: bytes, wide: str | None, *, has_header: bool) -> bool:
    """Say whether a file that begins so has a row: not if it ends within `head` and white space is all beside a header."""
    text = plain_text(head, wide)
    if not text.strip():
        return len(head) == BLANK
    return not has_header or len(head) == BLANK or bool(_FIRST_LINE.sub(b"", text, count=1).strip())


def plain_text(head: bytes, wide: str | None) -> bytes:
    """Return the beginning of a file without its mark and, of two or four bytes a character, in UTF-8."""
    return (head.decode(wide, "ignore").encode() if wide else head).removeprefix(codecs.BOM_UTF8)


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        others = (f"{name}.{number}" for number in itertools.count(1))
        found.append(name if name not in found else next(other for other in others if other not in (*found, *names)))
    return found


def wide_encoding(head: bytes, encoding: str) -> str | None:
    """Return the encoding of two or four bytes a character that a byte order mark or the recipe names, or None."""
    marked = next((name for bom, name in WIDE.items() if head.startswith(bom)), None)
    return marked or (encoding if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) else None)


def tables(
    file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str], quoted: bool | None
) -> Iterator[tuple[pa.Table, list[Bad]]]:
    """Yield tables of binary columns, each with the rows before its end that cannot be read: of too many or too few fields,
    with a quote that is not closed, or too long.

    What was written in two or four bytes a character comes as strings, which do not decode where it did not. Lines without
    any character are no rows. A TSV has no quotes unless `quoted`: in the lists of Conceptual Captions a quotation mark is
    only that.
    """
    odd: list[pacsv.InvalidRow] = []

    def skip(row: pacsv.InvalidRow) -> str:
        odd.append(row)
        return "skip"

    columns, rest, written, wide = _columns(file, kind, encoding, delimiter, names)
    if columns is None:
        return
    quotes = kind == "csv" if quoted is None else quoted
    text = AsUtf8(rest)  # or a row of too many fields with one wrong byte ends the list: Arrow cannot tell us what it says
    rows = WholeRows(text, _delimiter(kind, delimiter), len(columns), quoted=quotes)
    options = _options(columns, _delimiter(kind, delimiter), quotes, has_header=not names)
    options["parse_options"].invalid_row_handler = skip
    seen = int(not names)
    for batch in pacsv.open_csv(pa.PythonFile(rows, "r"), **options):
        table = _as_it_was(pa.table(batch)) if text.is_marked else pa.table(batch)
        bad = [_bad(row, written, rows) for row in odd]
        seen += len(table) + len(odd)
        rows.line(seen)  # it need not remember those before
        odd.clear()
        yield _as_strings(table) if wide else table, bad
    if odd:
        none = pa.table({name: pa.array([], pa.binary()) for name in columns})
        yield none, [_bad(row, written, rows) for row in odd]


def _options(columns: list[str], delimiter: str, quotes: bool, *, has_header: bool) -> dict[str, Any]:
    """Return how Arrow is to read: all columns as bytes, in the pieces that the stream gives."""
    kinds = dict.fromkeys(columns, pa.binary())
    most = LONGEST + 2 * READ
    return {
        "read_options": pacsv.ReadOptions(use_threads=False, block_size=most, column_names=columns, skip_rows=int(has_header)),
        "parse_options": pacsv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quotes else False, newlines_in_values=quotes
        ),
        "convert_options": pacsv.ConvertOptions(check_utf8=False, strings_can_be_null=False, column_types=kinds),
    }


def _bad(row: pacsv.InvalidRow, written: str, rows: WholeRows) -> Bad:
    if lost := rows.lost.pop(row.number, None):
        return Bad("bad_record", as_it_was(lost.text).decode(written, "replace"), lost.problem, lost.line)
    text = as_it_was(row.text.encode()).decode(written, "replace")
    fields = f"{row.actual_columns} field{'s' if row.actual_columns > 1 else ''}"
    return Bad("bad_record", text, f"{fields} where there are {row.expected_columns} columns", rows.line(row.number))


def _as_strings(table: pa.Table) -> pa.Table:
    """Return columns of bytes as strings, unchecked: who reads them finds those that are none."""
    views = [[chunk.view(pa.string()) for chunk in column.chunks] for column in table.columns]
    return pa.table([pa.chunked_array(chunks, pa.string()) for chunks in views], table.column_names)


def _as_it_was(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.array(map(as_it_was, table[name].to_pylist()), pa.binary()) for name in table.column_names})


def _columns(
    file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str]
) -> tuple[list[str] | None, Any, str, str | None]:
    """Return the columns' names, the file from its beginning on in an encoding that keeps ASCII, that one, and its wide one."""
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
    """Bytes already read, then the rest of the stream they were read from."""

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
