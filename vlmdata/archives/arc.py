"""Reads ARC, the predecessor of WARC. A record is a header line followed by its content.

Source: Burner and Kahle 1996, Arc File Format.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from vlmdata.archives.compressed_frames import GZIP, begins_record, read_at

_MAX_LINE = 65_536  # maximum bytes of a header line
_USUAL_LINE = 512  # bytes that hold most header lines
_HEAD = 4096  # bytes at the start of a file that are searched for the first header
_MAX_ODD = 100_000_000  # largest stated length after an `odd` header, in bytes; a line that states more is not a header
_STEP = 1 << 20
_BEGINS = re.compile(rb"(?:[a-z][a-z0-9+.-]*://|(?:dns|mailto|news|whois):)\S+(?: +\S+){3}", re.IGNORECASE)
_SCHEME = re.compile(rb"[a-z][a-z0-9+.-]*:\S", re.IGNORECASE)
_HOST = re.compile(rb"[\w-]+(?:\.[\w-]+)+(?:[:/?#]\S*)?")
_DATE = re.compile(rb"\d{12}(?:\d\d)?")
_ADDRESS = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f.]*:[0-9a-f:.]+", re.IGNORECASE)  # IP address of the server
_MEDIA = re.compile(rb"[\w.+-]+/[\w.+*-]+;?")
_LENGTH = re.compile(rb"\d{1,15}")
_LOOK_UPS = (b"dns", b"mailto", b"news", b"whois")  # schemes that do not name a web server; each is also a record kind


def is_arc(file: BinaryIO) -> bool:
    """Return whether a file begins like an ARC, plain or gzip-compressed. The file is rewound to its start.

    The version record may be missing or damaged. In that case, one of the first lines must be the header of a record.
    """
    head = _first_bytes(file)
    file.seek(0)
    if head.startswith(b"filedesc://"):
        return True
    if b"WARC/" in head.upper() or b" " not in head:
        return False
    headers = [_header(line) for line in head.lstrip().split(b"\n")]
    return headers[0] is not None or any(header and not header["odd"] for header in headers)


def arc_records(file: BinaryIO, start: int, end: int | None, max_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of a `Record`, as a dict, for each record that begins in [start, end) of an unpacked ARC.

    Where a header is expected, consecutive lines that are not valid headers give one bad record together. But a line that
    begins like a header gives a bad record of its own, to which the next lines belong. If the stated length of a record reaches
    past the end of the file, the record's content is searched for further records.
    """
    offset, lost = start, False
    size: int | None = None  # size of the file; measured when a stated length first reaches past the end of the file
    try:
        while end is None or offset < end:
            line = _line(file, offset)
            if not line:
                return
            at, offset = offset, offset + len(line)
            if not line.strip():
                continue
            record = _valid_header(file, offset, line)
            if record is None:
                if not lost or _BEGINS.match(line):
                    yield {"kind": "bad_record", "offset": at, "problem": "header"}
                lost = True
                continue
            length = record.pop("length")
            problem, block = (
                ("truncated", b"") if size and offset + length > size else _content(file, offset, length, max_bytes)
            )
            lost = problem == "truncated"
            if not lost:
                offset += length
            elif size is None:
                size = _size(file, offset)
            if problem:
                yield {**record, "kind": "bad_record", "offset": at, "problem": problem}
            else:
                yield {**record, "offset": at, "block": block if record["kind"] in ("response", "resource") else b""}
    except ConnectionError:
        raise
    except OSError:  # the stream breaks off
        if not lost:
            yield {"kind": "bad_record", "offset": offset, "problem": "truncated"}


def _first_bytes(file: BinaryIO) -> bytes:
    """Return about `_HEAD` unpacked bytes from the start of a file, or only 64 bytes if the file is a gzip-compressed WARC."""
    head = read_at(file, 0, _HEAD)
    if not head.startswith(GZIP):
        return head
    try:
        first = zlib.decompressobj(31).decompress(head, 64)
    except zlib.error:
        return b""
    if begins_record(first):
        return first
    file.seek(0)
    found = b""
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while len(found) < _HEAD and (more := stream.read1(_HEAD)):
                found += more
    except ConnectionError:
        raise
    except (OSError, EOFError, zlib.error):  # the bytes before the damage are enough
        pass
    return found


def _line(file: BinaryIO, offset: int) -> bytes:
    """Return the line at an offset with its line break. If the line exceeds `_MAX_LINE` bytes, return only that many bytes."""
    file.seek(offset)
    head = file.read(_USUAL_LINE)
    if b"\n" not in head and len(head) == _USUAL_LINE:
        head += file.read(_MAX_LINE - _USUAL_LINE)
    line, end, _ = head.partition(b"\n")
    return line + end


def _content(file: BinaryIO, offset: int, length: int, max_bytes: int) -> tuple[str | None, bytes]:
    """Return (problem or None, content) of the `length` bytes at an offset. Content longer than `max_bytes` is not read."""
    if length > max_bytes:
        return ("too_large" if read_at(file, offset + length - 1, 1) else "truncated"), b""
    block = read_at(file, offset, length)
    return ("truncated" if len(block) < length else None), block


def _size(file: BinaryIO, offset: int) -> int:
    """Return the size of a file in bytes. The function measures it by reading from `offset` to the end of the file."""
    while step := len(read_at(file, offset, _STEP)):
        offset += step
    return offset


def _valid_header(file: BinaryIO, offset: int, line: bytes) -> dict[str, Any] | None:
    """Return the header that a line holds, or None if the line is not a header. The record's content begins at `offset`.

    A header without a date or without a URL scheme is accepted only if another header or the end of the file follows the
    content.
    """
    record = _header(line)
    if record is None or not record.pop("odd"):
        return record
    if record["length"] > _MAX_ODD:
        return None
    tail = read_at(file, offset + record["length"] - 1, _HEAD)
    rest = tail[1:].lstrip(b"\r\n")
    follows = not rest or _BEGINS.match(rest) or _header(rest.partition(b"\n")[0])
    return record if tail and follows else None


def _header(line: bytes) -> dict[str, Any] | None:
    """Parse a header line, or return None if the line is not a header.

    A header is `URL IP date type length` (version 1) or the same with five more fields (version 2). A URL may contain spaces.
    The date and the server's address may be missing or malformed. The field `odd` of the result is True if the date or the
    URL scheme is missing.
    """
    fields = line.split()
    indexes = _field_indexes(fields) if len(fields) > 2 and _LENGTH.fullmatch(fields[-1]) else None
    if indexes is None:
        return None
    url_end, date, media = indexes
    has_scheme = bool(_SCHEME.match(fields[0]))
    if not has_scheme and (date is None or date < 2 or not _HOST.fullmatch(fields[0])):
        return None
    url = ("" if has_scheme else "http://") + "%20".join(field.decode("utf-8", "replace") for field in fields[:url_end])
    scheme = url.partition(":")[0].lower()
    kind = {"filedesc": "warcinfo", "http": "response", "https": "response"}.get(scheme, "resource")
    kind = scheme if scheme.encode() in _LOOK_UPS else kind
    headers = {"warc-target-uri": url}
    if date is not None:
        headers["warc-date"] = fields[date].decode()
    if media is not None:
        headers["content-type"] = fields[media].decode("utf-8", "replace")
    return {"kind": kind, "url": url, "headers": headers, "length": int(fields[-1]), "odd": date is None or not has_scheme}


def _field_indexes(fields: list[bytes]) -> tuple[int, int | None, int | None] | None:
    """Return (number of fields that hold the URL, index of the date or None, index of the media type or None).

    `fields` is a header line split at spaces, so a URL with spaces takes several fields. The date, the server
    address or the media type after the URL shows where the URL ends. Return None if the line has none of these three.
    """
    last = len(fields) - 1  # index of the length
    dates = [i for i in range(1, last) if _DATE.fullmatch(fields[i])]
    servers = [i for i in range(1, last) if _ADDRESS.fullmatch(fields[i])]
    media = [i for i in range(1, last) if _MEDIA.fullmatch(fields[i])]
    if dates:
        date = next((i for i in dates if i - 1 in servers), dates[-1])
        return max(1, date - 1), date, date + 1 if date + 1 < last else None
    if servers and servers[-1] + 1 < last:
        after = servers[-1] + 1
        kind = after if after in media else after + 1
        return servers[-1], None, kind if kind < last else None
    if media:
        return max(1, media[0] - 2), None, media[0]
    return None
