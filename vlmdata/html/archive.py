"""Web archives as streams of records: WARC (plain, gzip, LZ4, Zstandard), ARC, and both inside WACZ.

Nothing is held but the record at hand. A record that cannot be read is a record too, of kind `bad_record`, and reading goes on
at the next one that can.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastwarc.warc import ArchiveIterator

from vlmdata.html.arc import arc_records, is_arc
from vlmdata.html.remote import open_archive
from vlmdata.html.resync import next_record

KINDS = frozenset(
    ("response", "resource", "revisit", "request", "metadata", "warcinfo", "conversion", "continuation", "bad_record")
)
BODIES = frozenset(("response", "resource", "revisit"))  # kinds whose content is read; of the others only the header
_ZIP = b"PK\x03\x04"


@dataclass(slots=True)
class Record:
    """One record. Of kind `bad_record`, `problem` says why: header, truncated, too_large, digest."""

    kind: str  # response, resource, revisit, request, metadata, warcinfo, conversion, continuation, unknown, bad_record
    offset: int  # in the volume: where reading can start again
    url: str | None = None
    id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)  # the archive's, names in lower case
    block: bytes = b""  # the HTTP message, or the content of a resource
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """One stream of records: a file, or a member of a WACZ."""

    path: str
    member: str | None = None

    def open(self) -> BinaryIO:
        """Open for reading at the start; closing it closes the file."""
        if self.member is None:
            return open_archive(self.path)
        return zipfile.ZipFile(open_archive(self.path)).open(self.member)  # type: ignore[return-value]


def volumes(path: Path | str) -> list[Volume]:
    """Return what an archive file holds: itself, or the WARC and ARC members of a WACZ, in order of name.

    A WACZ that is no zip any more, or holds no archive, is one volume, whose one record is bad.
    """
    with open_archive(str(path)) as file:
        if file.read(4) != _ZIP:
            return [Volume(str(path))]
        try:
            listed = zipfile.ZipFile(file).namelist()
        except zipfile.BadZipFile:
            return [Volume(str(path))]
    names = sorted(n for n in listed if ".warc" in n.lower() or n.lower().endswith((".arc", ".arc.gz")))
    return [Volume(str(path), name) for name in names] or [Volume(str(path))]


def records(volume: Volume, *, start: int = 0, end: int | None = None, max_bytes: int = 100_000_000) -> Iterator[Record]:
    """Yield the records that begin in [start, end) of a volume, in order; start at 0 or where a record begins.

    Content longer than `max_bytes` is not read. Raises OSError only when the file itself cannot be opened, and ConnectionError
    when a store does not answer any more: that is no fault of the record at hand.
    """
    with volume.open() as file:
        if is_arc(file):
            yield from (Record(**values) for values in arc_records(file, start, max_bytes))
            return
        place, first, lenient, broken = start, True, False, False
        while True:
            file.seek(place)
            last = place
            try:
                for record in _run(file, max_bytes, end, lenient):
                    if record.problem == "truncated" and not record.block and not lenient:
                        raise _BareLines
                    last, first, broken = record.offset, False, record.kind == "bad_record"
                    yield record
                return
            except _BareLines:
                place, first, lenient = record.offset, True, True
                continue
            except ConnectionError:
                raise
            except (OSError, EOFError, zipfile.BadZipFile, ValueError):
                if not broken:  # else the record before, which is counted already, ends elsewhere than it says
                    yield Record("bad_record", last if first else last + 1, problem="header")
            found = next_record(file, last + 1)
            if found is None or (end is not None and found >= end):
                return
            place, first, broken = found, True, False


class _BareLines(Exception):
    """A record's header may end its lines in bare line feeds: the strict reader then finds no content after it."""


def _run(file: BinaryIO, max_bytes: int, end: int | None, lenient: bool) -> Iterator[Record]:
    """Yield records up to the first one that breaks the stream, which raises OSError."""
    iterator = ArchiveIterator(file, parse_http=False, auto_decode="none", quirks_mode=lenient)
    for entry in iterator:
        offset = entry.stream_pos  # in the file, wherever reading began
        if end is not None and offset >= end:
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


def _read_block(record: Record, entry: object, max_bytes: int) -> None:
    length = entry.content_length  # type: ignore[attr-defined]
    if length > max_bytes:
        record.kind, record.problem = "bad_record", "too_large"
        return
    block = entry.reader.read(length) if length else b""  # type: ignore[attr-defined]
    while len(block) < length and (more := entry.reader.read(length - len(block))):  # type: ignore[attr-defined]
        block += more
    record.block = block
    if len(block) < length:
        record.kind, record.problem = "bad_record", "truncated"
    elif not digest_fits(record.headers.get("warc-block-digest"), block):
        record.kind, record.problem = "bad_record", "digest"


def digest_fits(declared: str | None, block: bytes) -> bool:
    """Say whether a digest header is that of the bytes: `sha1:BASE32`, also hex, also md5 and sha256. True for none."""
    algorithm, _, text = (declared or "").strip().partition(":")
    name = algorithm.lower().replace("-", "")
    if name not in ("sha1", "md5", "sha256", "sha512") or not text:
        return True
    actual = hashlib.new(name, block, usedforsecurity=False).digest()
    for decode in (base64.b32decode, bytes.fromhex, base64.b64decode):
        try:
            if decode(text.upper() if decode is base64.b32decode else text) == actual:
                return True
        except (binascii.Error, ValueError):
            continue
    return False
