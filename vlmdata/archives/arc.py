"""ARC files, the format before WARC: a line of fields, then that many bytes. Source: Burner and Kahle 1996, Arc File Format."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from vlmdata.archives.compressed_frames import GZIP, begins_record, read_at

_MAX_LINE = 65_536  # bytes of a header line
_MOST_LINES = 512
_HEAD = 4096  # of a file, looked through for a first header
_MAX_ODD = 100_000_000  # bytes of content that an odd header is believed to have
_STEP = 1 << 20
_BEGINS = re.compile(rb"(?:[a-z][a-z0-9+.-]*://|(?:dns|mailto|news|whois):)\S+(?: +\S+){3}", re.IGNORECASE)
_SCHEME = re.compile(rb"[a-z][a-z0-9+.-]*:\S", re.IGNORECASE)
_HOST = re.compile(rb"[\w-]+(?:\.[\w-]+)+(?:[:/?#]\S*)?")
_DATE = re.compile(rb"\d{12}(?:\d\d)?")
_ADDRESS = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f.]*:[0-9a-f:.]+", re.IGNORECASE)  # of the server
_MEDIA = re.compile(rb"[\w.+-]+/[\w.+*-]+;?")
_LENGTH = re.compile(rb"\d{1,15}")
_LOOK_UPS = (b"dns", b"mailto", b"news", b"whois")  # what is asked of other servers than the web's: of a kind of its own


def is_arc(file: BinaryIO) -> bool:
    """Say whether a file begins as an ARC does, packed by gzip or not; leaves it at its start.

    The record that tells the version may be missing or damaged: then one of the first lines is the header of a record.
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
    """Yield each record that begins in [start, end) of an unpacked ARC as the values of a Record.

    Lines where a header should be make one bad record, but each that begins as a header does makes one of its own. After a
    header whose length reaches past the end of the file its content is looked through for further records.
    """
    place, lost = start, False
    size: int | None = None  # of the file, once a record was found to reach past it
    try:
        while end is None or place < end:
            line = _line(file, place)
            if not line:
                return
            at, place = place, place + len(line)
            if not line.strip():
                continue
            record = _believed(file, place, line)
            if record is None:
                if not lost or _BEGINS.match(line):
                    yield {"kind": "bad_record", "offset": at, "problem": "header"}
                lost = True
                continue
            length = record.pop("length")
            problem, block = ("truncated", b"") if size and place + length > size else _content(file, place, length, max_bytes)
            lost = problem == "truncated"
            if not lost:
                place += length
            elif size is None:
                size = _size(file, place)
            if problem:
                yield {**record, "kind": "bad_record", "offset": at, "problem": problem}
            else:
                yield {**record, "offset": at, "block": block if record["kind"] in ("response", "resource") else b""}
    except ConnectionError:
        raise
    except OSError:  # a stream that breaks off
        if not lost:
            yield {"kind": "bad_record", "offset": place, "problem": "truncated"}


def _first_bytes(file: BinaryIO) -> bytes:
    """Return the first bytes that a file holds, unpacked by gzip; those of a WARC are enough to know it."""
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
    except (OSError, EOFError, zlib.error):  # what comes before damage tells enough
        pass
    return found


def _line(file: BinaryIO, place: int) -> bytes:
    """Return the line at an offset with its end, as far as a header may be long."""
    file.seek(place)
    head = file.read(_MOST_LINES)
    if b"\n" not in head and len(head) == _MOST_LINES:
        head += file.read(_MAX_LINE - _MOST_LINES)
    line, end, _ = head.partition(b"\n")
    return line + end


def _content(file: BinaryIO, place: int, length: int, max_bytes: int) -> tuple[str | None, bytes]:
    """Return what is wrong with the content at an offset, or null, and the content, where it is at most `max_bytes` long."""
    if length > max_bytes:
        return ("too_large" if read_at(file, place + length - 1, 1) else "truncated"), b""
    block = read_at(file, place, length)
    return ("truncated" if len(block) < length else None), block


def _size(file: BinaryIO, place: int) -> int:
    """Return where a file ends, from an offset that it has."""
    while step := len(read_at(file, place, _STEP)):
        place += step
    return place


def _believed(file: BinaryIO, place: int, line: bytes) -> dict[str, Any] | None:
    """Return the header that a line is, its content being at an offset.

    One that is odd must be followed, after its content, by the next header or the end.
    """
    record = _header(line)
    if record is None or not record.pop("odd"):
        return record
    if record["length"] > _MAX_ODD:
        return None
    tail = read_at(file, place + record["length"] - 1, _HEAD)
    rest = tail[1:].lstrip(b"\r\n")
    follows = not rest or _BEGINS.match(rest) or _header(rest.partition(b"\n")[0])
    return record if tail and follows else None


def _header(line: bytes) -> dict[str, Any] | None:
    """Read `URL IP date type length` (version 1) or with five fields more (version 2); an URL may hold spaces.

    A date or an address of the server may be missing or be anything: such a header is `odd`, as is an URL without its scheme.
    """
    fields = line.split()
    places = _places(fields) if len(fields) > 2 and _LENGTH.fullmatch(fields[-1]) else None
    if places is None:
        return None
    url_end, date, media = places
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


def _places(fields: list[bytes]) -> tuple[int, int | None, int | None] | None:
    """Return how many fields the URL has, and where the date and the media type stand; nothing where no field tells."""
    last = len(fields) - 1  # the length
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
