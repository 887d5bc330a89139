"""CSV and TSV as Arrow tables of bytes, so that a wrong encoding or a broken row costs that row and no other."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from vlmdata.intake.as_utf8 import AsUtf8, as_it_was
from vlmdata.intake.opened import Damage

BLOCK = 4 << 20  # bytes; no row may be longer
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # first, for they begin like those of UTF-16
WIDE |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def header(file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str]) -> list[str]:
    """Return the names of the columns: those given, or those in the first line. Raises Damage."""
    if names:
        return list(names)
    head = file.read(1 << 16)
    wide = wide_encoding(head, encoding)
    if wide:
        text = head.decode(wide, "ignore").split("\n", 1)[0]
    else:
        try:
            text = head.split(b"\n", 1)[0].decode(encoding)
        except UnicodeDecodeError as error:
            raise Damage(f"the header is not written in {encoding} ({error.reason}); say `encoding:`") from None
    text = text.strip("\ufeff\r")
    if not text.strip():
        raise Damage("it begins with an empty line, not with a header; say `columns:`")
    return next(csv.reader([text], delimiter=_delimiter(kind, delimiter)))


def wide_encoding(head: bytes, encoding: str) -> str | None:
    """Return the encoding of two or four bytes a character that a byte order mark or the recipe names, or None."""
    marked = next((name for bom, name in WIDE.items() if head.startswith(bom)), None)
    return marked or (encoding if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) else None)


def tables(
    file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str], quoted: bool | None
) -> Iterator[tuple[pa.Table, list[tuple[str, str]]]]:
    """Yield tables of binary columns, each with the rows before its end that have too many or too few fields.

    Lines without any character are no rows. A TSV has no quotes unless `quoted`: in the lists of Conceptual Captions a
    quotation mark is only that.
    """
    bad: list[tuple[str, str]] = []

    def odd(row: Any) -> str:
        bad.append(("bad_record", as_it_was(row.text.encode()).decode(written, "replace")))
        return "skip"

    columns, rest, written = _columns(file, kind, encoding, delimiter, names)
    if columns is None:
        return
    quotes = kind == "csv" if quoted is None else quoted
    text = AsUtf8(rest)  # or a row of too many fields with one wrong byte ends the list: Arrow cannot tell us what it says
    reader = pacsv.open_csv(
        pa.PythonFile(text, "r"),
        read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=columns, skip_rows=0 if names else 1),
        parse_options=pacsv.ParseOptions(
            delimiter=_delimiter(kind, delimiter),
            quote_char='"' if quotes else False,
            newlines_in_values=quotes,
            invalid_row_handler=odd,
        ),
        convert_options=pacsv.ConvertOptions(
            check_utf8=False, strings_can_be_null=False, column_types=dict.fromkeys(columns, pa.binary())
        ),
    )
    for batch in reader:
        yield _as_it_was(pa.table(batch)) if text.is_marked else pa.table(batch), list(bad)
        bad.clear()
    if bad:
        yield pa.table({name: pa.array([], pa.binary()) for name in columns}), bad


def _as_it_was(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.array(map(as_it_was, table[name].to_pylist()), pa.binary()) for name in table.column_names})


def _columns(
    file: IO[bytes], kind: str, encoding: str, delimiter: str, names: Sequence[str]
) -> tuple[list[str] | None, Any, str]:
    """Return the names of the columns, the file from its beginning on in an encoding that keeps ASCII, and that encoding."""
    head = file.read(1 << 16)
    rest: Any = Chained(head, file)
    wide = wide_encoding(head, encoding)
    if wide:
        rest = pa.transcoding_input_stream(pa.PythonFile(rest, "r"), wide, "utf-8")
    written = "utf-8" if wide else encoding
    if not head.strip():
        return None, rest, written
    return header(io.BytesIO(head), kind, encoding, delimiter, names), rest, written


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
