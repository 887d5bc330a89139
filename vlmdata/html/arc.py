"""ARC files, the format before WARC: a line of fields, then that many bytes. Source: Burner and Kahle 1996, Arc File Format."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

_MAX_LINE = 65_536  # bytes of a header line
_GZIP = b"\x1f\x8b"


def is_arc(file: BinaryIO) -> bool:
    """Say whether a file begins as an ARC does; leaves it at its start."""
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, 64)
        except zlib.error:
            return False
    return head.startswith(b"filedesc://")


def arc_records(file: BinaryIO, start: int, max_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield each record from `start` on as the values of a Record. Offsets count in the unpacked stream."""
    packed = file.read(2) == _GZIP
    file.seek(0)
    stream: Any = gzip.GzipFile(fileobj=file) if packed else file
    place = stream.seek(start)
    while True:
        try:
            line = stream.readline(_MAX_LINE)
            if not line:
                return
            start, place = place, place + len(line)
            if not line.strip():
                continue
            record = _header(line)
            if record is None:
                yield {"kind": "bad_record", "offset": start, "problem": "header"}
                if not line.endswith(b"\n"):
                    return
                continue
            length = record.pop("length")
            block = stream.read(min(length, max_bytes))
            place += len(block)
            record["offset"] = start
            if length > max_bytes:
                place += _skip(stream, length - max_bytes)
                record |= {"kind": "bad_record", "problem": "too_large"}
            elif len(block) < length:
                record |= {"kind": "bad_record", "problem": "truncated"}
            elif record["kind"] == "response":
                record["block"] = block
            yield record
        except ConnectionError:
            raise
        except (EOFError, OSError, zlib.error):
            yield {"kind": "bad_record", "offset": place, "problem": "truncated"}
            return


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


def _skip(stream: Any, count: int) -> int:
    skipped = 0
    while skipped < count and (piece := stream.read(min(1 << 20, count - skipped))):
        skipped += len(piece)
    return skipped
