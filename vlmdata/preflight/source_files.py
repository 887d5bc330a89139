"""Finds files of a source that are not what their names say, from their first and last bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from vlmdata.errors import RecipeError
from vlmdata.preflight.findings import Findings
from vlmdata.readers.file_formats import HEAD, format_of_bytes
from vlmdata.readers.open_file import bare_name, opened
from vlmdata.step import Source

CHECKED_FILES = 20
MEANT = {".parquet": "parquet", ".tar": "a tar", ".zip": "a zip archive"}  # ending: the format that its first bytes show
TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")  # text files, whose first bytes must not be those of a format
WITHOUT_ROWS = (".warc", ".wet", ".wat", ".arc")  # archives of pages; with no byte they hold no record
LINES = (".jsonl", ".ndjson")
HTML = (b"<!doctype html", b"<html")
END = b"PAR1"  # the last bytes of a Parquet file


def check_files(source: Source, findings: Findings) -> None:
    """Add the local files whose bytes do not fit their names, and the files that are empty. The first 20 files are read.

    Every Parquet file must be whole. Another file among several is only noted, because a run counts what it cannot read.
    """
    empty = []
    files = list(islice(_local(source), CHECKED_FILES))
    for path, size in files:
        if not size:
            empty.append(path)
        elif problem := _problem(path, source):
            is_mistake = len(files) == 1 or bare_name(path).endswith(".parquet")
            (findings.mistakes if is_mistake else findings.notes).append(problem)
    if empty:
        findings.notes += _empty(empty)


def _empty(paths: list[str]) -> list[str]:
    """Return a note about empty lists and archives, and one about other empty files, such as images. Each gives a row."""
    rows = [path for path in paths if bare_name(path).endswith((*MEANT, *TEXTS, *WITHOUT_ROWS))]
    others = [path for path in paths if path not in rows]
    notes = []
    for some, gives in ((rows, "no rows"), (others, "only a dropped row")):
        if len(some) > 1:
            notes.append(f"{some[0]} and {len(some) - 1} more are empty, so each gives {gives}")
        elif some:
            notes.append(f"{some[0]} is empty, so it gives {gives}")
    return notes


def _local(source: Source) -> Iterator[tuple[str, int]]:
    for path, size in source.files():
        if "://" not in path and os.path.isfile(path):
            yield path, size


def _problem(path: str, source: Source) -> str | None:
    ending = os.path.splitext(bare_name(path))[1]
    if (ending not in MEANT and ending not in TEXTS) or getattr(source, "format", "auto") not in ("auto", ending[1:]):
        return None
    try:
        with opened(path) as file:
            head = file.read(HEAD)
    except RecipeError as error:
        return str(error)
    found = format_of_bytes(head)
    if ending in MEANT:
        if found == MEANT[ending]:
            return (
                f"{path} is cut off, because its end is missing. Copy or download it again" if _is_cut(path, ending) else None
            )
        if ending == ".tar" and found is None:
            return None  # the source reads what is left of a damaged tar
        return f"{path} is {found or _shown(head)}, not {MEANT[ending]}. Copy or download it again, or correct its name"
    if head.lstrip()[:20].lower().startswith(HTML) or (found and found != "HTML or XML"):
        return f"{path} is {found}, not {ending[1:]}. Copy or download it again, or correct its name"
    if ending in LINES and _spans_lines(head):
        return (
            f"{path}: the first line is not a whole JSON value, so these are not JSON lines. If one JSON value spans the file, "
            "set source.format=json"
        )
    return None


def _shown(head: bytes) -> str:
    return f"a file that begins with {head[:12]!r}"


def _is_cut(path: str, ending: str) -> bool:
    if ending != ".parquet" or not path.lower().endswith(ending):
        return False
    with open(path, "rb") as file:
        file.seek(-len(END), os.SEEK_END)
        return file.read() != END


def _spans_lines(head: bytes) -> bool:
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0].strip()
    return line in (b"{", b"[")
