"""CSV is cut into whole rows, equal to Arrow's for any block size, and a row that never ends loses only that row."""

import csv
import io
import random
import time

import pytest

from vlmdata.readers import delimited, whole_rows

HEAD = "url,caption\n"
UNCLOSED = "a quote opens a field here and is not closed"


def read(text: str | bytes, kind: str = "csv", quoted: bool | None = None) -> tuple[list, list]:
    """Return the rows, and the line and the problem of each bad row."""
    data = text if isinstance(text, bytes) else text.encode()
    rows, bad = [], []
    for table, odd in delimited.tables(io.BytesIO(data), kind, "utf-8", "", (), quoted):
        rows += [tuple(row.values()) for row in table.to_pylist()]
        bad += [(one.line, one.problem) for one in odd]
    return rows, bad


@pytest.mark.parametrize(
    ("text", "rows", "bad"),
    [
        ('a,"open\nb,y\nc,z\n', [(b"b", b"y"), (b"c", b"z")], [(2, UNCLOSED)]),
        ('a,"open\nb,y\nc,z', [(b"b", b"y"), (b"c", b"z")], [(2, UNCLOSED)]),
        ('a,"open', [], [(2, UNCLOSED)]),
        ('a,"', [], [(2, UNCLOSED)]),
        ('a,x\n\n\nb,"""\nc,""""\nd,""\n', [(b"a", b"x"), (b"c", b'"'), (b"d", b"")], [(5, UNCLOSED)]),
        # the quote that closes it opens a field in a later row
        ('a,"open\nb,y\nc,"z, z"\nd,z\n', [(b"b", b"y"), (b"c", b"z, z"), (b"d", b"z")], [(2, UNCLOSED)]),
        ('"a\nb","open\nc,z\n', [(b"c", b"z")], [(3, UNCLOSED)]),
        ('a,"two\nlines"\nb,"x" \nc,6" nails\n', [(b"a", b"two\nlines"), (b"b", b"x "), (b"c", b'6" nails')], []),
        ('a,"open\r\nb,y\r\n', [(b"b", b"y")], [(2, UNCLOSED)]),
        ('a,"open\rb,y\r', [(b"b", b"y")], [(2, UNCLOSED)]),
        ('a,"open\nb,y,z\nc,z\n', [(b"c", b"z")], [(2, UNCLOSED), (3, "the row has 3 fields, but there are 2 columns")]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_an_unclosed_quote_loses_only_its_line(text, rows, bad, block, monkeypatch):
    monkeypatch.setattr(whole_rows, "READ", block)
    assert read(HEAD + text) == (rows, bad)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("columns", [1, 2])
def test_a_row_that_is_too_long_loses_only_that_row(kind, columns, monkeypatch):
    monkeypatch.setattr(whole_rows, "READ", 1000)
    monkeypatch.setattr(whole_rows, "LONGEST", 5000)
    names = ["a", "b"][:columns]
    lines = [names, ["x" * 4000, "y"], ["z" * 50_000, "y"], ["w", "y"], ["v" * 9000, "y"]]
    text = "\n".join(("," if kind == "csv" else "\t").join(line[:columns]) for line in lines)
    rows, bad = read(text, kind)
    assert [row[0][:1] for row in rows] == [b"x", b"w"]
    assert bad == [(3, "the row is longer than 0 MB"), (5, "the row is longer than 0 MB")]


def test_rows_of_several_megabytes_are_read():
    rows, bad = read("image\ttext\n" + f"{'A' * (9 << 20)}\tone\n" * 3, "tsv")
    assert [(len(image), text) for image, text in rows] == [(9 << 20, b"one")] * 3 and bad == []


@pytest.mark.parametrize("seed", range(60))
def test_whole_files_are_read_as_other_csv_readers_read_them(seed, monkeypatch):
    dice = random.Random(seed)
    monkeypatch.setattr(whole_rows, "READ", dice.choice([1, 3, 10, 1000]))
    fields = ["", "x", "a b", 'say "x"', "two\nlines", "a\r\nb\n", "ü,", '"', ",", "\n", "\\"]
    rows = [("a", "b"), *((dice.choice(fields[1:]), dice.choice(fields)) for _ in range(dice.randrange(1, 9)))]
    text = io.StringIO()
    csv.writer(text, lineterminator=dice.choice(["\n", "\r\n", "\r"]), quoting=csv.QUOTE_ALL).writerows(rows)
    assert read(text.getvalue()) == ([tuple(field.encode() for field in row) for row in rows[1:]], [])


@pytest.mark.parametrize("seed", range(60))
def test_a_row_that_cannot_be_read_is_reported_by_its_line(seed, monkeypatch):
    dice = random.Random(seed)
    monkeypatch.setattr(whole_rows, "READ", dice.choice([1, 3, 10, 1000]))
    kinds = ["a,b", '"a\nb",c', "", "only", 'x,"y\n\nz"', "1,2,3"]
    lines = [dice.choice(kinds) for _ in range(12)]
    begins = [2 + sum(1 + one.count("\n") for one in lines[:at]) for at in range(len(lines))]
    expected = [number for number, line in zip(begins, lines, strict=True) if line in ("only", "1,2,3")]
    rows, bad = read(HEAD + "\n".join([*lines, "e,f"]))
    assert [line for line, _ in bad] == expected
    assert rows[-1] == (b"e", b"f")


@pytest.mark.parametrize("line", ['a,"""x\n', 'a,"x\n', '"",', '"\n",', '""', '"', ',"\n', "\n", "\r", '"x"x,'])
def test_hostile_quotes_are_read_in_linear_time(line):
    def seconds(size: int) -> float:
        start = time.process_time()
        read(HEAD + line * (size // len(line)))
        return time.process_time() - start

    assert seconds(800_000) < 20 * seconds(200_000) + 1
