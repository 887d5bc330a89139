"""Web archives as streams of records: WARC (plain, gzip, LZ4, Zstandard), ARC, and both inside WACZ.

Nothing is held but the record at hand. A record that cannot be read is a record too, of kind `bad_record`, and reading goes on
at the next one that can. A large volume is divided into pieces, whose records together are those of the whole.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator

from vlmdata.html.arc import arc_records, is_arc
from vlmdata.html.digest import digest_fits
from vlmdata.html.frames import Primed, dictionary_frame, is_packed
from vlmdata.html.remote import open_archive
from vlmdata.html.resync import next_record, proved_end, record_starts, sure_record
from vlmdata.html.sequential import Sequential
from vlmdata.html.volume import ZIP, Volume

KINDS = frozenset(
    ("response", "resource", "revisit", "request", "metadata", "warcinfo", "conversion", "continuation", "bad_record")
)
BODIES = frozenset(("response", "resource", "revisit"))  # kinds whose content is read; of the others only the header
UNPACKED = 4  # times larger is a piece of a stream that is unpacked from its start: about what a packed one unpacks to
_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, ValueError)


@dataclass(slots=True)
class Record:
    """One record. Of kind `bad_record`, `problem` says why: header, truncated, too_large, digest."""

    kind: str  # response, resource, revisit, request, metadata, warcinfo, conversion, continuation, unknown, bad_record
    offset: int  # in the volume as `Volume.open` gives it: where reading can start again
    url: str | None = None
    id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)  # the archive's, names in lower case
    block: bytes = b""  # the HTTP message, or the content of a resource
    problem: str | None = None


def volumes(path: Path | str) -> list[Volume]:
    """Return what an archive file holds: itself, or the WARC and ARC members of a WACZ, in order of name.

    A WACZ that is no zip any more, or holds no archive, is one volume, whose one record is bad.
    """
    with open_archive(str(path)) as file:
        if file.read(4) != ZIP:
            return [Volume(str(path))]
        try:
            listed = zipfile.ZipFile(file).namelist()
        except zipfile.BadZipFile:
            return [Volume(str(path))]
    names = sorted(n for n in listed if ".warc" in n.lower() or n.lower().endswith((".arc", ".arc.gz")))
    return [Volume(str(path), name) for name in names] or [Volume(str(path))]


def pieces(volume: Volume, size: int, every: int) -> list[tuple[int, int | None]]:
    """Divide a volume of `size` bytes into ranges for `piece_records`, of about `every` bytes; a smaller one is one range.

    Frames are cut anywhere, which costs nothing. What has none is gone through from one record to the next.
    """
    if volume.member is not None:
        size = volume.size()
    if size <= every:
        return [(0, None)]
    starts: list[int | None]
    with volume.open() as file:
        if is_packed(file):
            starts = [*range(0, size, every)]
        else:
            every *= UNPACKED if isinstance(file, Sequential) else 1
            by_lengths = _arc_starts if is_arc(file) else _warc_starts
            starts = [*by_lengths(file, every)]
    return [(start or 0, end) for start, end in pairwise([*(starts or [0]), None])]


def piece_records(volume: Volume, start: int, end: int | None, max_bytes: int) -> Iterator[Record]:
    """Yield the records of one of the ranges that `pieces` gives; of all ranges together each record of the volume once."""
    with volume.open() as file:
        first, last = start or None, end
        if is_packed(file):
            first = sure_record(file, start) if start else None
            last = sure_record(file, end) if end is not None else None
            if start and first is None:
                return  # the piece before reads on to the end
        yield from _records(file, first or 0, last, max_bytes)


def records(volume: Volume, *, max_bytes: int = 100_000_000) -> Iterator[Record]:
    """Yield the records of a volume in order.

    Content longer than `max_bytes` is not read. Raises OSError only when the file itself cannot be opened, and ConnectionError
    when a store does not answer any more: that is no fault of the record at hand.
    """
    with volume.open() as file:
        yield from _records(file, 0, None, max_bytes)


def record_at(file: BinaryIO, offset: int, max_bytes: int) -> Record | None:
    """Return the record at an offset of an opened volume."""
    return next(_records(file, offset, None, max_bytes), None)


def _arc_starts(file: BinaryIO, every: int) -> Iterator[int]:
    yield 0
    cut = every
    for record in arc_records(file, 0, None, max_bytes=0):
        if record["offset"] >= cut and record["problem"] in (None, "too_large"):
            yield record["offset"]
            cut = record["offset"] - record["offset"] % every + every


def _warc_starts(file: BinaryIO, every: int) -> Iterator[int]:
    def sound(place: int) -> Iterator[int]:
        return (record.offset for record in _records(file, place, None, max_bytes=100_000_000) if record.kind != "bad_record")

    return record_starts(file, every, sound)


def _records(file: Any, start: int, end: int | None, max_bytes: int) -> Iterator[Record]:
    """Yield the records that begin in [start, end), both 0, the end or where a record begins."""
    if is_arc(file):
        yield from (Record(**values) for values in arc_records(file, start, end, max_bytes))
        return
    stop = _Stop(file, end)
    place, first, lenient, broken = start, True, False, False
    while True:
        last, ends_early = place, False
        try:
            for number, record in enumerate(_run(file, place, max_bytes, stop, lenient)):
                if _has_bare_lines(record) if not lenient else number and not stop.packed:
                    raise _OtherLines
                last, first, broken = record.offset, False, record.kind == "bad_record"
                ends_early = record.problem == "truncated"
                yield record
            if not ends_early:
                return
            at = proved_end(file, last, max_bytes)  # a length that lies swallows all records up to the end
        except _OtherLines:
            place, first, lenient = record.offset, True, not lenient
            continue
        except ConnectionError:
            raise
        except _DAMAGE:
            at = place if first else proved_end(file, last, max_bytes)
        if at is None:  # the record before, whose end is not known
            found = next_record(file, last + 1)
            if not broken and not stop.packed:  # a broken one is counted already
                yield Record("bad_record", last + 1, problem="header")
        else:
            found = next_record(file, at + 1 if first else at)
            if first or found != at:
                if end is not None and at >= end:
                    return
                yield Record("bad_record", at, problem="header")
        if found is None or (end is not None and found >= end):
            return
        place, first, broken = found, True, False


class _OtherLines(Exception):
    """A record's header may end its lines in bare line feeds: the strict reader then finds no content after it, or takes them
    for one line. The lenient one reads that record alone, so that none depends on those before it."""


def _has_bare_lines(record: Record) -> bool:
    if record.problem == "truncated" and not record.block:
        return True
    return any("\n" in value for value in record.headers.values())


class _Stop:
    """Where a piece ends. Of a second record in one frame the reader says that it begins where the next frame does."""

    def __init__(self, file: BinaryIO, end: int | None):
        self.packed = is_packed(file)
        self.end = end
        self.headers = _headers_at(file, end) if end is not None and self.packed else None

    def __call__(self, offset: int, entry: Any) -> bool:
        if self.end is None or offset < self.end:
            return False
        return offset > self.end or self.headers in (None, entry.headers.to_dict())


def _entries(file: BinaryIO, place: int, lenient: bool) -> Iterator[tuple[int, Any]]:
    """Yield FastWARC's records from a place on, each with its offset in the file."""
    frame = dictionary_frame(file) if place else b""
    file.seek(place)
    source: Any = Primed(frame, file) if frame else file
    for entry in ArchiveIterator(source, parse_http=False, auto_decode="none", quirks_mode=lenient):
        yield entry.stream_pos + (place - len(frame) if frame else 0), entry


def _headers_at(file: BinaryIO, place: int) -> dict[str, str] | None:
    try:
        return next((entry.headers.to_dict() for _, entry in _entries(file, place, False)), None)
    except ConnectionError:
        raise
    except _DAMAGE:
        return None


def _run(file: BinaryIO, place: int, max_bytes: int, stop: _Stop, lenient: bool) -> Iterator[Record]:
    """Yield records up to the first one that breaks the stream, which raises OSError."""
    for offset, entry in _entries(file, place, lenient):
        if stop(offset, entry):
            return
        headers = {name.lower(): value for name, value in entry.headers.items()}
        kind = headers.get("warc-type", "").strip().lower()
        record = Record(kind if kind in KINDS else "unknown", offset, _url(headers), headers.get("warc-record-id"), headers)
        if kind in BODIES:
            _read_block(record, entry, max_bytes)
        yield record


def _url(headers: dict[str, str]) -> str | None:
    url = headers.get("warc-target-uri", "").strip().strip("<>")  # wget once wrote it in brackets
    return url.replace(" ", "%20") or None


def _read_block(record: Record, entry: Any, max_bytes: int) -> None:
    length = entry.content_length
    if length > max_bytes:
        record.kind, record.problem = "bad_record", "too_large"
        return
    block = entry.reader.read(length) if length else b""
    while len(block) < length and (more := entry.reader.read(length - len(block))):
        block += more
    record.block = block
    if len(block) < length:
        record.kind, record.problem = "bad_record", "truncated"
    elif not digest_fits(record.headers.get("warc-block-digest"), block):
        record.kind, record.problem = "bad_record", "digest"
