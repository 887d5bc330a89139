"""Cut CSV and TSV into whole rows before Arrow reads them. A row with an unclosed quote is then lost alone.

Rows follow Arrow's rules. A quote opens a quoted field only at the start of the field. Inside a quoted field, two quotes mean
one quote. Text after the closing quote belongs to the field too. A quote counts as unclosed if no closing quote follows in the
file or in the next LONGEST bytes. It also counts as unclosed if the closing quote is on a later line and neither a delimiter
nor a line end follows it, because such a quote opens another field.
"""

from __future__ import annotations

import codecs
import io
import re
from bisect import bisect_right
from typing import Any, NamedTuple

READ = 4 << 20  # bytes per read
LONGEST = 32 << 20  # longest row in bytes: an image of 20 MB takes 27 MB in base64
SHOWN = 1000  # bytes of a lost row to keep
_LINE_END = re.compile(rb"\r\n|\n|\r")
_QUOTES = re.compile(rb'"++')
_SINGLE = re.compile(rb'(?<!")(?:"")*+"(?!")')  # an odd number of quotes closes a quoted field


class Lost(NamedTuple):
    """A row that was left out, with the line of its problem, its first bytes and the problem."""

    line: int
    text: bytes
    problem: str


class WholeRows(io.RawIOBase):
    """A stream whose blocks end at row ends.

    A row that cannot be read is recorded in `lost`. In its place, the stream has a row with the wrong number of fields, which
    Arrow reports as invalid. Rows are numbered as by Arrow: from 1, including the header, without empty lines.
    """

    def __init__(self, source: Any, delimiter: str, columns: int, *, quoted: bool) -> None:
        self.lost: dict[int, Lost] = {}
        self._source = source
        self._quoted = quoted
        mark = delimiter.encode()
        self._instead = mark * columns + b"\n"
        self._field_end = re.compile(rb"[\r\n%b]" % re.escape(mark))
        # a field within a line, quoted or not; possessive against catastrophic backtracking on untrusted text
        field = rb'(?:"(?:[^"\r\n]|"")*+"[^\r\n%b]*+|[^"\r\n%b][^\r\n%b]*+)?+'.replace(b"%b", re.escape(mark))
        self._fields = re.compile(rb"(?:%b%b)*+" % (field, re.escape(mark)))
        self._whole_lines = re.compile(rb"(?:%b%b(?:\n|\r\n|\r(?=[^\n])))*+" % (self._fields.pattern, field))
        self._closed = re.compile(rb"[ \t]*+(?:[\r\n%b]|$)" % re.escape(mark))
        self._bom = codecs.BOM_UTF8
        self._data = b""  # read and not yet returned
        self._is_whole = False  # nothing follows `_data`
        self._skips = False  # the rest of a lost line still has to be skipped
        self._ready = memoryview(b"")
        self._row = self._line = 1  # numbers of the row and line at the beginning of `_data`
        self._rows, self._lines = [1], [1]  # some rows and their first lines; each row between two of these has one line
        self._single = (0, 0)  # start and end of the last search for a single quote

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or b"" at the end."""
        while not self._ready and not (self._is_whole and not self._data):
            block = self._source.read(READ) or b""
            self._is_whole = not block
            self._data += block.removeprefix(self._bom)
            self._bom = b""
            self._ready = memoryview(b"".join(self._pieces()))
        size = len(self._ready) if size < 0 else size
        block, self._ready = self._ready[:size], self._ready[size:]
        return bytes(block)

    def stop(self) -> None:
        """Let the stream end here. A read in another thread may still return one block."""
        self._source, self._data, self._ready = io.BytesIO(), b"", memoryview(b"")

    def line(self, row: int) -> int:
        """Return the line where a row begins, and forget earlier rows. The result is wrong for a forgotten row."""
        at = max(bisect_right(self._rows, row) - 1, 0)
        del self._rows[:at], self._lines[:at]
        return self._lines[0] + row - self._rows[0]

    def _pieces(self) -> list[bytes]:
        """Return the complete rows of the buffered bytes (`_data`), and keep the rest."""
        data, at, found = self._data, 0, []
        self._single = (0, -1)
        if self._skips and (end := self._next_line(0)):
            self._skips, at = False, end
            self._advance(0, end)
        while not self._skips and at < len(data):
            end = self._simple_end(at)
            if end > at:
                self._count(at, end)
                found.append(data[at:end])
                at = end
                continue
            end, trouble, problem = self._row_end(at)
            if end:
                self._count_row(at, end)
                found.append(data[at:end])
            elif not self._is_whole and len(data) - at < LONGEST:
                break
            else:
                end = self._next_line(trouble)
                self._lose(at, trouble, end, problem)
                found.append(self._instead)
                self._skips = not end and not self._is_whole
                end = end or len(data)
            at = end
        if self._skips:
            at = len(data)
        self._data = data[at:]
        return found

    def _simple_end(self, at: int) -> int:
        """Return the position after the consecutive one-line rows that begin at `at`, or `at` if there are none."""
        if self._quoted and self._data.find(b'"', at) >= 0:
            return self._whole_lines.match(self._data, at).end()  # type: ignore[union-attr]  # matches the empty string too
        if self._is_whole:
            return len(self._data)
        stop = len(self._data) - self._data.endswith(b"\r")  # may be the first half of \r\n
        return max(self._data.rfind(b"\n", at, stop), self._data.rfind(b"\r", at, stop), at - 1) + 1

    def _next_line(self, at: int) -> int:
        """Return where the next line begins, or 0 if that is not known yet."""
        end = _LINE_END.search(self._data, at)
        if end is None or (end[0] == b"\r" and end.end() == len(self._data) and not self._is_whole):
            return len(self._data) if self._is_whole else 0
        return end.end()

    def _row_end(self, start: int) -> tuple[int, int, str]:
        """Return (end of the row or 0 if it has none, position of the problem, description of the problem)."""
        at = start
        while True:
            at = self._fields.match(self._data, at).end()  # type: ignore[union-attr]  # matches the empty string too
            if self._quoted and self._data.startswith(b'"', at):
                end = self._closing(at + 1)
                if end == 0 or (self._spans_lines(at, end) and not self._closed.match(self._data, end)):
                    return 0, at, "a quote opens a field here and is not closed"
                at = end
            end_of_field = self._field_end.search(self._data, at)
            if end_of_field is None or end_of_field[0] in b"\r\n":
                return self._next_line(at), start, f"the row is longer than {LONGEST >> 20} MB"
            at = end_of_field.end()

    def _closing(self, at: int) -> int:
        """Return the position after the quote that closes a field whose content begins at `at`, or 0 if there is none."""
        if run := _QUOTES.match(self._data, at):
            if (run.end() - at) % 2:
                return run.end()
            at = run.end()
        start, ended = self._single
        if not start <= at < ended:  # otherwise, the result of the last search is valid here too
            single = _SINGLE.search(self._data, at)
            ended = single.end() if single else len(self._data) + 1
            self._single = at, ended
        return ended if ended <= len(self._data) else 0

    def _spans_lines(self, at: int, end: int) -> bool:
        return self._data.find(b"\n", at, end) >= 0 or self._data.find(b"\r", at, end) >= 0

    def _lose(self, start: int, trouble: int, end: int, problem: str) -> None:
        before = len(_LINE_END.findall(self._data, start, trouble))
        self.lost[self._row] = Lost(self._line + before, self._data[start : min(end or start + SHOWN, start + SHOWN)], problem)
        self._count_row(start, end or len(self._data))

    def _count(self, start: int, end: int) -> None:
        """Count the rows and the empty lines from `start` to `end`, where each row takes exactly one line."""
        lines = self._data[start:end]
        ends = lines.count(b"\n")
        if b"\r" not in lines and b"\n\n" not in lines and not lines.startswith(b"\n") and lines.endswith(b"\n"):
            self._row += ends
            self._line += ends
            return
        for line in lines.splitlines():
            self._line += 1
            if line:
                self._row += 1
            else:
                self._note()

    def _count_row(self, start: int, end: int) -> None:
        self._row += 1
        self._advance(start, end)

    def _advance(self, start: int, end: int) -> None:
        lines = len(_LINE_END.findall(self._data, start, end))
        self._line += lines
        if lines != 1:
            self._note()

    def _note(self) -> None:
        """Record the line on which the next row begins."""
        if self._rows[-1] == self._row:
            self._lines[-1] = self._line
        else:
            self._rows.append(self._row)
            self._lines.append(self._line)
