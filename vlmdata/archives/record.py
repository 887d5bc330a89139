"""A record of an archive: its kind, its headers and its content, read from a stream."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import Any

from vlmdata.archives.digest import record_fits
from vlmdata.archives.http_message import Response, parse_response

KINDS = frozenset(
    ("response", "resource", "revisit", "request", "metadata", "warcinfo", "conversion", "continuation", "bad_record")
)
BODIES = frozenset(("response", "resource"))  # kinds whose content is kept; other content is only checked for presence
DAMAGE = (OSError, EOFError, zipfile.BadZipFile, ValueError)


@dataclass(slots=True)
class Record:
    """One record. If `kind` is `bad_record`, `problem` says why: header, truncated, too_large, digest.

    A cut-off record keeps its kind if content of that kind is not kept; its `problem` is truncated.
    """

    kind: str  # one of KINDS, or unknown; in an ARC also the look-ups dns, mailto, news, whois
    offset: int  # in the volume as `Volume.open` returns it: reading can start here again
    url: str | None = None
    id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)  # of the archive, names in lower case
    block: bytes = b""  # the HTTP message, or the content of a resource
    problem: str | None = None


def response_of(record: Record, max_bytes: int) -> Response:
    """Return the content of a `response` or `resource` record as a server's response."""
    if record.kind == "resource":
        return Response(200, {"content-type": record.headers.get("content-type", "")}, record.block)
    return parse_response(record.block, max_bytes=max_bytes)


def new_record(headers: dict[str, str], offset: int) -> Record:
    kind = headers.get("warc-type", "").strip().lower()
    return Record(kind if kind in KINDS else "unknown", offset, _url(headers), headers.get("warc-record-id"), headers)


def _url(headers: dict[str, str]) -> str | None:
    url = headers.get("warc-target-uri", "").strip().strip("<>")  # old versions of wget write it in brackets
    return url.replace(" ", "%20") or None


def read_block(record: Record, reader: Any, length: int, max_bytes: int) -> None:
    """Read a record's content. If its kind is not kept or it exceeds `max_bytes`, only check that it is complete."""
    is_kept = record.kind in BODIES
    if not is_kept or length > max_bytes:
        is_whole = _skip(reader, length)
        record.problem = "truncated" if not is_whole else "too_large" if is_kept else None
        record.kind = "bad_record" if is_kept else record.kind
        return
    block = _read_some(reader, length) if length else b""
    while len(block) < length and (more := _read_some(reader, length - len(block))):
        block += more
    record.block = block
    if len(block) < length:
        record.kind, record.problem = "bad_record", "truncated"
    elif not record_fits(record.headers, block, max_bytes):
        record.kind, record.problem = "bad_record", "digest"


def _skip(reader: Any, length: int) -> bool:
    """Skip content, and return whether all of it was there."""
    while length > 0 and (more := _read_some(reader, min(length, 1 << 20))):
        length -= len(more)
    return length <= 0


def _read_some(reader: Any, size: int) -> bytes:
    """Return up to `size` bytes of a record's content, none if it breaks off."""
    try:
        found: bytes = reader.read(size)
        return found
    except ConnectionError:
        raise
    except DAMAGE:
        return b""
