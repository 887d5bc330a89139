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
# The content of these kinds is kept. Other content is only checked to be complete.
BODIES = frozenset(("response", "resource"))
DAMAGE = (OSError, EOFError, zipfile.BadZipFile, ValueError)


@dataclass(slots=True)
class Record:
    """A record of an archive. If `kind` is `bad_record`, `problem` says why: header, truncated, too_large or digest.

    Content is kept only in records of the kinds `response` and `resource`. If a WARC record of another kind is cut off,
    its `problem` is truncated, but its `kind` stays the same.
    """

    kind: str  # one of KINDS or unknown; in an ARC also dns, mailto, news or whois
    offset: int  # in the file that `Volume.open` returns; reading can start again here
    url: str | None = None
    id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)  # of the record, not of HTTP; names in lower case
    block: bytes = b""  # the HTTP message, or the content of a resource
    problem: str | None = None


def response_of(record: Record, max_bytes: int) -> Response:
    """Return the parsed HTTP message of a `response` record, or the content of a `resource` record as a response."""
    if record.kind == "resource":
        return Response(200, {"content-type": record.headers.get("content-type", "")}, record.block)
    return parse_response(record.block, max_bytes=max_bytes)


def new_record(headers: dict[str, str], offset: int) -> Record:
    """Return a record without its content. The names of `headers` are in lower case."""
    kind = headers.get("warc-type", "").strip().lower()
    return Record(kind if kind in KINDS else "unknown", offset, _url(headers), headers.get("warc-record-id"), headers)


def _url(headers: dict[str, str]) -> str | None:
    url = headers.get("warc-target-uri", "").strip().strip("<>")  # old versions of wget write it in brackets
    return url.replace(" ", "%20") or None


def read_block(record: Record, reader: Any, length: int, max_bytes: int) -> None:
    """Read the content of a record. If the content is damaged, set the record's `kind` and `problem`.

    Content is kept only in a `response` or a `resource`, and only if it has at most `max_bytes` bytes. Other content is
    only checked to be complete.
    """
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
    """Skip `length` bytes of content. Return whether all of them were there."""
    while length > 0 and (more := _read_some(reader, min(length, 1 << 20))):
        length -= len(more)
    return length <= 0


def _read_some(reader: Any, size: int) -> bytes:
    """Return up to `size` bytes of a record's content, or no bytes where the content breaks off."""
    try:
        found: bytes = reader.read(size)
        return found
    except ConnectionError:
        raise
    except DAMAGE:
        return b""
