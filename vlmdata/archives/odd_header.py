"""Parses record headers that FastWARC misreads: with an unusual spelling of the version or a field, or with bare line feeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from vlmdata.archives.compressed_frames import begins_record, read_at

_MOST = 2048  # bytes that hold most headers
_LONGEST = 65_536
_END = re.compile(rb"\n\r*\n")
_LENGTH = re.compile(r"\d{1,15}", re.ASCII)


class RecordHeader(NamedTuple):
    """The parsed header of a record."""

    fields: dict[str, str]  # names in lower case; the first of repeated fields is kept
    size: int  # bytes of the header, up to the content
    length: int  # stated bytes of content; 0 if the header states no number


def header_at(file: BinaryIO, offset: int) -> RecordHeader | None:
    """Return the header of the record at an offset of an unpacked file, or None if no complete header begins there."""
    head = read_at(file, offset, _MOST)
    end = _END.search(head)
    if end is None and len(head) == _MOST:
        head += read_at(file, offset + _MOST, _LONGEST - _MOST)
        end = _END.search(head)
    if end is None or not begins_record(head):
        return None
    fields: dict[str, str] = {}
    last = ""
    for line in head[: end.start()].decode("utf-8", "replace").split("\n")[1:]:
        if line[:1] in (" ", "\t"):
            fields[last] = f"{fields.get(last, '')} {line.strip()}".strip()
            continue
        name, _, value = line.partition(":")
        last = name.strip().lower()
        fields.setdefault(last, value.strip())
    return RecordHeader(fields, end.end(), stated_length(fields))


def stated_length(fields: Mapping[str, str]) -> int:
    """Return the stated length of the content in bytes, or 0 if none is stated. The names of `fields` are in lower case."""
    stated = fields.get("content-length", "").strip()
    return int(stated) if _LENGTH.fullmatch(stated) else 0
