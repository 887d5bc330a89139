"""On which line a record of CSV begins: looked up only for records that cannot be read, by a second reading of the file."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO

csv.field_size_limit(8 << 20)  # the limit of the csv module, for the whole process: else a long caption would stop the count


class RecordLines:
    """The lines at which records begin. Arrow tells a record's number alone, and quoted fields may hold line ends.

    Opens the file at the first question. Ask for rising numbers only; close it, or use it in a `with`.
    """

    def __init__(self, again: Callable[[], AbstractContextManager[IO[bytes]]], encoding: str, delimiter: str, quoted: bool):
        self._again = again
        self._encoding = encoding
        self._delimiter = delimiter
        self._quoted = quoted
        self._stack = contextlib.ExitStack()
        self._starts: Iterator[tuple[int, int]] | None = None

    def __enter__(self) -> RecordLines:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def line(self, number: int) -> int | None:
        """Return the line, from 1, on which a record begins, counted from 1 with the header and without empty lines."""
        self._starts = self._starts or self._records()
        with contextlib.suppress(csv.Error):
            return next((line for found, line in self._starts if found == number), None)
        return None

    def _records(self) -> Iterator[tuple[int, int]]:
        """Yield number and line of each record."""
        stream = self._stack.enter_context(self._again())
        text = io.TextIOWrapper(stream, self._encoding, "replace", newline="")  # lines end as Arrow's do: \n, \r or both
        reader = csv.reader(text, delimiter=self._delimiter, quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE)
        numbers = itertools.count(1)
        before = 0
        for record in reader:
            if record:
                yield next(numbers), before + 1
            before = reader.line_num
