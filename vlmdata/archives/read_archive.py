"""Reads web archives as streams of records: WARC (plain, gzip, LZ4, Zstandard) and ARC, also as members of a WACZ.

Memory holds one record at a time. A record that cannot be read is yielded with kind `bad_record`, and reading continues at the
next readable record. A volume is an archive file or a member of a WACZ. A large volume is divided into pieces. A piece is a
byte range, and the pieces together yield the records of the whole volume.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vlmdata.archives.arc import arc_records, is_arc
from vlmdata.archives.compressed_frames import (
    after_empty,
    begins_record,
    dictionary_of,
    frame_end,
    frame_head,
    is_packed,
    read_at,
    unpacked,
)
from vlmdata.archives.entries import entries
from vlmdata.archives.odd_header import RecordHeader, header_at, stated_length
from vlmdata.archives.record import BODIES, DAMAGE, Record, new_record, read_block
from vlmdata.archives.remote_archives import open_archive
from vlmdata.archives.resync import certain_record, next_record, proved_end, record_starts
from vlmdata.archives.sequential import Sequential
from vlmdata.archives.volume import ZIP, Volume

MAX_FALSE_LENGTHS = 16  # each false stated length costs a read to the end of the file, so no length is trusted after this many
UNPACKED_RATIO = 4  # a piece of an unpacked stream is this many times larger: about the compression ratio


def volumes(path: Path | str) -> list[Volume]:
    """Return the volumes of an archive file: the file itself, or the WARC and ARC members of a WACZ, sorted by name.

    A WACZ that is a damaged zip or holds no archive is one volume, which yields one bad record.
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
    """Divide a volume of `size` bytes into ranges [start, end) of about `every` bytes, for `piece_records`.

    A volume of at most `every` bytes is one range. The end of the last range is None. A compressed volume is cut at any offset,
    without reading it. Any other volume is read record by record and cut where a record begins.
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
            every *= UNPACKED_RATIO if isinstance(file, Sequential) else 1
            by_lengths = _arc_starts if is_arc(file) else _warc_starts
            starts = [*by_lengths(file, every)]
    return [(start or 0, end) for start, end in pairwise([*(starts or [0]), None])]


def piece_records(volume: Volume, start: int, end: int | None, max_bytes: int) -> Iterator[Record]:
    """Yield the records of one range from `pieces`. All ranges together yield each record of the volume once."""
    with volume.open() as file:
        first, last = start or None, end
        if is_packed(file):
            first = certain_record(file, start) if start else None
            last = certain_record(file, end) if end is not None else None
            if start and first is None:
                return  # the previous piece reads to the end of the volume
        yield from _records(file, first or 0, last, max_bytes)


def records(volume: Volume, *, max_bytes: int = 100_000_000) -> Iterator[Record]:
    """Yield the records of a volume in order. Content longer than `max_bytes` is not read.

    Raises OSError if the file itself cannot be opened, and ConnectionError if a remote store stops answering. Damage does not
    raise an error, but yields a bad record.
    """
    with volume.open() as file:
        yield from _records(file, 0, None, max_bytes)


def record_at(file: BinaryIO, offset: int, max_bytes: int) -> Record | None:
    """Return the record at an offset of an open volume, or None at the end of the volume."""
    return next(_records(file, offset, None, max_bytes), None)


def _arc_starts(file: BinaryIO, every: int) -> Iterator[int]:
    yield 0
    cut = every
    for record in arc_records(file, 0, None, max_bytes=0):
        if record["offset"] >= cut and record["problem"] in (None, "too_large"):
            yield record["offset"]
            cut = record["offset"] - record["offset"] % every + every


def _warc_starts(file: BinaryIO, every: int) -> Iterator[int]:
    def sound(position: int) -> Iterator[int]:
        return (
            record.offset for record in _records(file, position, None, max_bytes=100_000_000) if record.kind != "bad_record"
        )

    return record_starts(file, every, sound)


def _records(file: Any, start: int, end: int | None, max_bytes: int) -> Iterator[Record]:
    """Yield the records that begin in [start, end). Each bound is the start of a record, or the start or end of the file."""
    if is_arc(file):
        yield from (Record(**values) for values in arc_records(file, start, end, max_bytes))
        return
    stop = _Stop(file, end)
    position: int | None = start
    while position is not None:
        last, is_broken = yield from _records_before_damage(file, position, max_bytes, stop)
        position = (yield from _skip_damage(file, position, last, max_bytes, stop)) if is_broken else None


def _records_before_damage(
    file: Any, position: int, max_bytes: int, stop: _Stop
) -> Generator[Record, None, tuple[Record | None, bool]]:
    """Yield the records from `position` up to the first damage. Return the last record, and whether damage follows it."""
    last: Record | None = None
    try:
        for last in _unbroken_records(file, position, max_bytes, stop):
            yield last
    except ConnectionError:
        raise
    except DAMAGE:
        return last, True
    if stop.is_reached or last is None or last.problem != "truncated":
        return last, False
    stop.false_lengths += 1  # a false length makes all further records part of the content
    return last, True


def _skip_damage(
    file: Any, position: int, last: Record | None, max_bytes: int, stop: _Stop
) -> Generator[Record, None, int | None]:
    """Yield the records in damaged bytes that this module can read although FastWARC cannot, or else at most one bad record.

    `position` is where reading began. `last` is the record before the damage, or None if the damage is at `position`. Return
    the offset where reading continues, or None if no record follows before the end of the range.
    """
    at = position if last is None else proved_end(file, last.offset, max_bytes)
    if at is None and last is not None:  # the end of the last record is not known
        stop.false_lengths += 1
        found = next_record(file, last.offset + 1)
        if last.problem is None and not stop.packed:  # a record with a problem was already counted
            yield Record("bad_record", last.offset + 1, problem="header")
        return found if stop.is_inside(found) else None
    assert at is not None
    at = after_empty(file, at) if stop.packed else at
    if stop.is_inside(at) and (odd := _other_spelling(file, at, max_bytes)):
        yield from odd.records
        return odd.end if odd.end is not None else next_record(file, at + 1)
    found = next_record(file, at + 1 if last is None else at)
    if last is None or found != at:
        if not stop.is_inside(at) or not read_at(file, at, 1):
            return None
        yield Record("bad_record", at, problem="header")
    return found if stop.is_inside(found) else None


class _Stop:
    """Detects the end of the byte range from which records are read, and counts records with a false stated length.

    If a frame holds two records, FastWARC reports a wrong offset for the second record: the offset of the next frame. So a
    record may seem to begin at `end` although it begins before `end`. To detect this, its headers are compared with the
    headers of the record that FastWARC reads first when it starts at `end`. If they differ, the record is inside the range.
    """

    def __init__(self, file: BinaryIO, end: int | None):
        self.packed = is_packed(file)
        self.end = end
        self.is_reached = False
        self.false_lengths = 0  # records whose stated length was wrong, after which the reader had to seek back
        self.headers = _headers_at(file, end) if end is not None and self.packed else None

    def is_inside(self, position: int | None) -> bool:
        """Return whether an offset is before the end of the range. False for None."""
        return position is not None and (self.end is None or position < self.end)

    def __call__(self, offset: int, entry: Any) -> bool:
        """Return whether this record begins at or after the end of the range."""
        if self.end is not None and offset >= self.end:
            self.is_reached = offset > self.end or self.headers in (None, entry.headers.to_dict())
        return self.is_reached


def _headers_at(file: BinaryIO, position: int) -> dict[str, str] | None:
    try:
        return next((entry.headers.to_dict() for _, entry in entries(file, position)), None)
    except ConnectionError:
        raise
    except DAMAGE:
        return None


def _unbroken_records(file: BinaryIO, position: int, max_bytes: int, stop: _Stop) -> Iterator[Record]:
    """Yield the records up to the first damage, and raise OSError there."""
    at: int | None = position
    while at is not None:
        start, at = at, None
        for offset, entry in entries(file, start):
            if stop(offset, entry):
                return
            if stop.false_lengths > MAX_FALSE_LENGTHS and (odd := _read_alone(file, offset, entry, max_bytes, stop)):
                yield from odd.records
                at = odd.end
                break
            record = new_record({name.lower(): value for name, value in entry.headers.items()}, offset)
            read_block(record, entry.reader, entry.content_length, max_bytes)
            if _is_odd(record, entry.content_length) and (odd := _odd_records(file, offset, entry, max_bytes)):
                yield from odd.records
                at = odd.end
                stop.false_lengths += record.problem == "truncated"
                break
            yield record
            if record.problem == "truncated" and stop.packed:  # the record's content includes the frames after its own frame
                at = frame_end(file, offset)
                stop.false_lengths += 1
                break


def _is_odd(record: Record, length: int) -> bool:
    """Return whether FastWARC misread the header of a record. `length` is the content's length according to FastWARC.

    FastWARC misreads two kinds of headers. If `Content-Length` is spelled differently, as in `content-length`, FastWARC finds
    no length. If lines end in bare line feeds, it finds no content or joins the lines.
    """
    if length == 0 and stated_length(record.headers):
        return True
    return (record.problem == "truncated" and not record.block) or any("\n" in value for value in record.headers.values())


def _read_alone(file: BinaryIO, position: int, entry: Any, max_bytes: int, stop: _Stop) -> _Odd | None:
    """Return the record at an offset, without trusting the length that its header states.

    A packed record is read only from its own frame. A plain record is returned as cut off if its length is false, which means
    that neither another record nor the end of the file follows its content. If the length of a plain record is right, or if a
    record cannot be parsed, return None and leave the file where it was. The caller uses this function only after many false
    lengths, because without it each false length costs a read to the end of the file.
    """
    if stop.packed:
        return _odd_records(file, position, entry, max_bytes)
    before = file.tell()
    header = header_at(file, position)
    if header is None or _is_followed(file, position + header.size + header.length):
        file.seek(before)
        return None
    record = new_record(header.fields, position)
    record.kind = "bad_record" if record.kind in BODIES else record.kind
    record.problem = "truncated"
    return _Odd([record], next_record(file, position + header.size))


def _is_followed(file: BinaryIO, end: int) -> bool:
    """Return whether the file reaches the offset `end`, and either ends there or holds another record."""
    around = read_at(file, end - 1, 12)
    return bool(around) and (not around[1:].strip(b"\r\n") or begins_record(around[1:].lstrip(b"\r\n")))


class _Odd(NamedTuple):
    """Records that FastWARC cannot read, and that this module parsed instead."""

    records: list[Record]
    end: int | None  # where reading continues; None after a cut-off record


def _odd_records(file: BinaryIO, position: int, entry: Any, max_bytes: int) -> _Odd | None:
    """Return the record at an offset and the records after it in the same frame.

    If no record can be parsed, return None and leave the file where it was.
    """
    before = file.tell()
    odd = None
    if not is_packed(file):
        if header := header_at(file, position):
            record = _odd_record(file, position, position, header, max_bytes)
            odd = _Odd([record], position + header.size + header.length if record.problem != "truncated" else None)
    elif _headers_at(file, position) == entry.headers.to_dict():  # the record is the first of its frame
        odd = _odd_frame(file, position, max_bytes)
    if odd is None:
        file.seek(before)
    return odd


def _other_spelling(file: BinaryIO, position: int, max_bytes: int) -> _Odd | None:
    """Return the records at an offset where FastWARC stops because the version has an unusual spelling, such as `warc/1.0`.

    Return None if the spelling is usual, or if no record begins at the offset.
    """
    packed = is_packed(file)
    head = frame_head(file, position, dictionary_of(file)) if packed else read_at(file, position, 5)
    if not begins_record(head) or head == b"WARC/":
        return None
    if packed:
        return _odd_frame(file, position, max_bytes)
    header = header_at(file, position)
    if header is None:
        return None
    record = _odd_record(file, position, position, header, max_bytes)
    end = position + header.size + header.length
    blank = read_at(file, end, 8)
    return _Odd([record], end + len(blank) - len(blank.lstrip(b"\r\n")) if record.problem != "truncated" else None)


def _odd_frame(file: BinaryIO, position: int, max_bytes: int) -> _Odd | None:
    end = frame_end(file, position)
    frame = read_at(file, position, 2 * max_bytes if end is None else end - position)
    content = unpacked(frame, dictionary_of(file), 2 * max_bytes)
    records: list[Record] = []
    at = 0
    while header := header_at(io.BytesIO(content), at):
        records.append(_odd_record(io.BytesIO(content), at, (end or position) if records else position, header, max_bytes))
        at += header.size + header.length
        at += len(content[at : at + 8]) - len(content[at : at + 8].lstrip(b"\r\n"))
    return _Odd(records, end) if records else None


def _odd_record(file: BinaryIO, position: int, offset: int, header: RecordHeader, max_bytes: int) -> Record:
    file.seek(position + header.size)
    record = new_record(header.fields, offset)
    read_block(record, file, header.length, max_bytes)
    return record
