"""Web archives as streams of records: WARC (plain, gzip, LZ4, Zstandard), ARC, and both inside WACZ.

Nothing is held but the record at hand. A record that cannot be read is a record too, of kind `bad_record`, and reading goes on
at the next one that can. A large volume is divided into pieces, whose records together are those of the whole.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
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
from vlmdata.archives.digest import record_fits
from vlmdata.archives.entries import entries
from vlmdata.archives.http_message import Response, parse_response
from vlmdata.archives.odd_header import RecordHeader, header_at, stated_length
from vlmdata.archives.remote_archives import open_archive
from vlmdata.archives.resync import next_record, proved_end, record_starts, sure_record
from vlmdata.archives.sequential import Sequential
from vlmdata.archives.volume import ZIP, Volume

KINDS = frozenset(
    ("response", "resource", "revisit", "request", "metadata", "warcinfo", "conversion", "continuation", "bad_record")
)
BODIES = frozenset(("response", "resource"))  # kinds whose content is kept; of the others only whether it is there
FEW_LIES = 16  # stated lengths that may make us read on to the end of the file and come back
UNPACKED = 4  # times larger is a piece of a stream that is unpacked from its start: about what a packed one unpacks to
_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, ValueError)


@dataclass(slots=True)
class Record:
    """One record. Of kind `bad_record`, `problem` says why: header, truncated, too_large, digest.

    A record of a kind whose content is not kept stays what it is where it is cut off, with the problem truncated.
    """

    kind: str  # one of KINDS, unknown, or of ARC also what was asked of another server than the web's: dns, mailto, news, whois
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


def response_of(record: Record, max_bytes: int) -> Response:
    """Return what a record of kind `response` or `resource` holds as an answer of a server."""
    if record.kind == "resource":
        return Response(200, {"content-type": record.headers.get("content-type", "")}, record.block)
    return parse_response(record.block, max_bytes=max_bytes)


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
    place: int | None = start
    while place is not None:
        last, is_broken = yield from _until_damage(file, place, max_bytes, stop)
        place = (yield from _past_damage(file, place, last, max_bytes, stop)) if is_broken else None


def _until_damage(file: Any, place: int, max_bytes: int, stop: _Stop) -> Generator[Record, None, tuple[Record | None, bool]]:
    """Yield the records from `place` on. Return the last one, and whether reading broke after it."""
    last: Record | None = None
    try:
        for last in _run(file, place, max_bytes, stop):
            yield last
    except ConnectionError:
        raise
    except _DAMAGE:
        return last, True
    if stop.is_reached or last is None or last.problem != "truncated":
        return last, False
    stop.lies += 1  # a length that lies swallows all records up to the end
    return last, True


def _past_damage(
    file: Any, place: int, last: Record | None, max_bytes: int, stop: _Stop
) -> Generator[Record, None, int | None]:
    """Yield what lies where reading broke: a bad record, or records spelled otherwise. Return where the next one begins.

    Reading began at `place`, and `last` is the record before the damage; None: it is at `place` itself.
    """
    at = place if last is None else proved_end(file, last.offset, max_bytes)
    if at is None and last is not None:  # the record before, whose end is not known
        stop.lies += 1
        found = next_record(file, last.offset + 1)
        if last.problem is None and not stop.packed:  # a broken one is counted already
            yield Record("bad_record", last.offset + 1, problem="header")
        return found if stop.is_after(found) else None
    assert at is not None
    at = after_empty(file, at) if stop.packed else at
    if stop.is_after(at) and (odd := _spelled_otherwise(file, at, max_bytes)):
        yield from odd.records
        return odd.end if odd.end is not None else next_record(file, at + 1)
    found = next_record(file, at + 1 if last is None else at)
    if last is None or found != at:
        if not stop.is_after(at) or not read_at(file, at, 1):
            return None
        yield Record("bad_record", at, problem="header")
    return found if stop.is_after(found) else None


class _Stop:
    """Where a piece ends. Of a second record in one frame the reader says that it begins where the next frame does."""

    def __init__(self, file: BinaryIO, end: int | None):
        self.packed = is_packed(file)
        self.end = end
        self.is_reached = False
        self.lies = 0  # records whose stated length made us read on and come back
        self.headers = _headers_at(file, end) if end is not None and self.packed else None

    def is_after(self, place: int | None) -> bool:
        """Say whether the piece ends behind this place; it does not where there is no such place."""
        return place is not None and (self.end is None or place < self.end)

    def __call__(self, offset: int, entry: Any) -> bool:
        if self.end is not None and offset >= self.end:
            self.is_reached = offset > self.end or self.headers in (None, entry.headers.to_dict())
        return self.is_reached


def _headers_at(file: BinaryIO, place: int) -> dict[str, str] | None:
    try:
        return next((entry.headers.to_dict() for _, entry in entries(file, place)), None)
    except ConnectionError:
        raise
    except _DAMAGE:
        return None


def _run(file: BinaryIO, place: int, max_bytes: int, stop: _Stop) -> Iterator[Record]:
    """Yield records up to the first one that breaks the stream, which raises OSError."""
    at: int | None = place
    while at is not None:
        start, at = at, None
        for offset, entry in entries(file, start):
            if stop(offset, entry):
                return
            if stop.lies > FEW_LIES and (odd := _alone(file, offset, entry, max_bytes, stop)):
                yield from odd.records
                at = odd.end
                break
            record = _record({name.lower(): value for name, value in entry.headers.items()}, offset)
            _read_block(record, entry.reader, entry.content_length, max_bytes)
            if _is_odd(record, entry.content_length) and (odd := _odd_records(file, offset, entry, max_bytes)):
                yield from odd.records
                at = odd.end
                stop.lies += record.problem == "truncated"
                break
            yield record
            if record.problem == "truncated" and stop.packed:  # it has swallowed the frames that follow its own
                at = frame_end(file, offset)
                stop.lies += 1
                break


def _is_odd(record: Record, length: int) -> bool:
    """Say whether FastWARC did not understand a header.

    It knows `Content-Length` in this spelling alone. After bare line feeds it finds no content, or takes them for one line.
    """
    if length == 0 and stated_length(record.headers):
        return True
    return (record.problem == "truncated" and not record.block) or any("\n" in value for value in record.headers.values())


def _alone(file: BinaryIO, place: int, entry: Any, max_bytes: int, stop: _Stop) -> _Odd | None:
    """Return the record at an offset as it is without what follows it: in its frame, or cut off where no record follows it.

    None, and the file as it was, where it is to be read as usual. Where many lengths lie each would have us read the rest.
    """
    if stop.packed:
        return _odd_records(file, place, entry, max_bytes)
    before = file.tell()
    header = header_at(file, place)
    if header is None or _is_followed(file, place + header.size + header.length):
        file.seek(before)
        return None
    record = _record(header.fields, place)
    record.kind = "bad_record" if record.kind in BODIES else record.kind
    record.problem = "truncated"
    return _Odd([record], next_record(file, place + header.size))


def _is_followed(file: BinaryIO, end: int) -> bool:
    """Say whether the file goes on to here, and then ends or has another record."""
    around = read_at(file, end - 1, 12)
    return bool(around) and (not around[1:].strip(b"\r\n") or begins_record(around[1:].lstrip(b"\r\n")))


class _Odd(NamedTuple):
    records: list[Record]
    end: int | None  # where reading goes on: nowhere after what is cut off


def _odd_records(file: BinaryIO, place: int, entry: Any, max_bytes: int) -> _Odd | None:
    """Return the record at an offset, with those behind it in its frame; nothing, and the file as it was, where it has none."""
    before = file.tell()
    odd = None
    if not is_packed(file):
        if header := header_at(file, place):
            record = _odd_record(file, place, place, header, max_bytes)
            odd = _Odd([record], place + header.size + header.length if record.problem != "truncated" else None)
    elif _headers_at(file, place) == entry.headers.to_dict():  # else it is not the first of its frame
        odd = _odd_frame(file, place, max_bytes)
    if odd is None:
        file.seek(before)
    return odd


def _spelled_otherwise(file: BinaryIO, place: int, max_bytes: int) -> _Odd | None:
    """Return the records at an offset where the version is spelled `warc/1.0`, at which FastWARC ends; None where it is not."""
    packed = is_packed(file)
    head = frame_head(file, place, dictionary_of(file)) if packed else read_at(file, place, 5)
    if not begins_record(head) or head == b"WARC/":
        return None
    if packed:
        return _odd_frame(file, place, max_bytes)
    header = header_at(file, place)
    if header is None:
        return None
    record = _odd_record(file, place, place, header, max_bytes)
    end = place + header.size + header.length
    blank = read_at(file, end, 8)
    return _Odd([record], end + len(blank) - len(blank.lstrip(b"\r\n")) if record.problem != "truncated" else None)


def _odd_frame(file: BinaryIO, place: int, max_bytes: int) -> _Odd | None:
    end = frame_end(file, place)
    frame = read_at(file, place, 2 * max_bytes if end is None else end - place)
    content = unpacked(frame, dictionary_of(file), 2 * max_bytes)
    records: list[Record] = []
    at = 0
    while header := header_at(io.BytesIO(content), at):
        records.append(_odd_record(io.BytesIO(content), at, (end or place) if records else place, header, max_bytes))
        at += header.size + header.length
        at += len(content[at : at + 8]) - len(content[at : at + 8].lstrip(b"\r\n"))
    return _Odd(records, end) if records else None


def _odd_record(file: BinaryIO, place: int, offset: int, header: RecordHeader, max_bytes: int) -> Record:
    file.seek(place + header.size)
    record = _record(header.fields, offset)
    _read_block(record, file, header.length, max_bytes)
    return record


def _record(headers: dict[str, str], offset: int) -> Record:
    kind = headers.get("warc-type", "").strip().lower()
    return Record(kind if kind in KINDS else "unknown", offset, _url(headers), headers.get("warc-record-id"), headers)


def _url(headers: dict[str, str]) -> str | None:
    url = headers.get("warc-target-uri", "").strip().strip("<>")  # wget once wrote it in brackets
    return url.replace(" ", "%20") or None


def _read_block(record: Record, reader: Any, length: int, max_bytes: int) -> None:
    """Read a record's content. Of a kind whose content is not kept, or of more than `max_bytes`, see only that it is there."""
    is_kept = record.kind in BODIES
    if not is_kept or length > max_bytes:
        is_whole = _skipped(reader, length)
        record.problem = "truncated" if not is_whole else "too_large" if is_kept else None
        record.kind = "bad_record" if is_kept else record.kind
        return
    block = _more(reader, length) if length else b""
    while len(block) < length and (more := _more(reader, length - len(block))):
        block += more
    record.block = block
    if len(block) < length:
        record.kind, record.problem = "bad_record", "truncated"
    elif not record_fits(record.headers, block, max_bytes):
        record.kind, record.problem = "bad_record", "digest"


def _skipped(reader: Any, length: int) -> bool:
    """Read past content, and say whether all of it was there."""
    while length > 0 and (more := _more(reader, min(length, 1 << 20))):
        length -= len(more)
    return length <= 0


def _more(reader: Any, size: int) -> bytes:
    """Return more of a record's content, none where it breaks off."""
    try:
        found: bytes = reader.read(size)
        return found
    except ConnectionError:
        raise
    except _DAMAGE:
        return b""
