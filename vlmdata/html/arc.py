"""ARC files, the format before WARC: a line of fields, then that many bytes. Source: Burner and Kahle 1996, Arc File Format."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

_MAX_LINE = 65_536  # bytes of a header line
_MOST_LINES = 512
_GZIP = b"\x1f\x8b"
_ADDRESS = re.compile(rb"[a-z]+://\S*(?: \S+){3}")


def is_arc(file: BinaryIO) -> bool:
    """Say whether a file begins as an ARC does, packed by gzip or not; leaves it at its start."""
    file.seek(0)
    try:
        head = file.read(512)
    except ConnectionError:
        raise
    except OSError:  # a stream that breaks off at once
        return False
    file.seek(0)
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, 64)
        except zlib.error:
            return False
    return head.startswith(b"filedesc://")


def arc_records(file: BinaryIO, start: int, end: int | None, max_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield each record that begins in [start, end) of an unpacked ARC as the values of a Record.

    Lines where a header should be make one bad record, but each that begins as a header does makes one of its own.
    """
    place = start
    lost = False
    try:
        while end is None or place < end:
            line = _line(file, place)
            if not line:
                return
            at, place = place, place + len(line)
            if not line.strip():
                continue
            record = _header(line)
            if record is None:
                if not lost or _ADDRESS.match(line):
                    yield {"kind": "bad_record", "offset": at, "problem": "header"}
                if not line.endswith(b"\n"):
                    return
                lost = True
                continue
            lost = False
            length = record.pop("length")
            record |= {"offset": at, "problem": None}
            if length > max_bytes:
                place += length
                yield {**record, "kind": "bad_record", "problem": "too_large"}
                continue
            file.seek(place)
            block = file.read(length)
            place += len(block)
            if len(block) < length:
                yield {**record, "kind": "bad_record", "problem": "truncated"}
                return
            if record["kind"] == "response":
                record["block"] = block
            yield record
    except ConnectionError:
        raise
    except OSError:  # a stream that breaks off
        yield {"kind": "bad_record", "offset": place, "problem": "truncated"}


def _line(file: BinaryIO, place: int) -> bytes:
    """Return the line at an offset with its end, as far as a header may be long."""
    file.seek(place)
    head = file.read(_MOST_LINES)
    if b"\n" not in head and len(head) == _MOST_LINES:
        head += file.read(_MAX_LINE - _MOST_LINES)
    line, end, _ = head.partition(b"\n")
    return line + end


def _header(line: bytes) -> dict[str, Any] | None:
    """Read `URL IP date type length` (version 1) or with five fields more (version 2); an URL may hold spaces."""
    fields = line.decode("utf-8", "replace").split()
    if len(fields) < 5 or not fields[-1].isdigit() or "://" not in fields[0]:
        return None
    place = next((i for i in range(len(fields) - 2, 1, -1) if fields[i].isdigit() and len(fields[i]) in (12, 14)), None)
    if place is None or place < 2:
        return None
    url = "%20".join(fields[: place - 1])
    kind = "warcinfo" if url.startswith("filedesc:") else "response" if url.startswith("http") else "resource"
    headers = {"warc-target-uri": url, "warc-date": fields[place], "content-type": fields[place + 1]}
    return {"kind": kind, "url": url, "headers": headers, "length": int(fields[-1])}
