"""Parses the HTTP response in an archive record: status, headers, and the decoded body."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vlmdata.archives.codecs import brotli_reader, zstd_reader

_MAX_HEAD = 262_144  # bytes
_ENOUGH = 4  # encoded bytes to read for each decoded byte, because the body may begin with a chunk size or a compression table


@dataclass(slots=True)
class Response:
    """A parsed response. If it has no body, `problem` says why: `http_header`, `bad_chunks`, `bad_encoding` or `too_large`."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case; the first of repeated headers is kept
    body: bytes = b""
    problem: str | None = None

    @property
    def media_type(self) -> str:
        """The media type in lower case and without parameters, or an empty string if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """The charset parameter of Content-Type, or None if there is none."""
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip("\"'") or None
        return None


class _Undecodable(Exception):
    """Raised for a body that cannot be decoded. The message names the problem. `decoded` holds the bytes decoded so far."""

    def __init__(self, problem: str, decoded: bytes = b""):
        super().__init__(problem)
        self.decoded = decoded


def parse_response(block: bytes, *, max_bytes: int, with_body: bool = True) -> Response:
    """Parse an HTTP response. Without `with_body`, parse only the status and the headers.

    If the decoded body exceeds `max_bytes`, the response has no body, and its `problem` is `too_large`.
    """
    head, body = _split(block)
    lines = head.split(b"\n")
    words = lines[0].split(None, 2)
    if not words or not words[0].startswith(b"HTTP/") or len(words) < 2 or not words[1].isdigit():
        return Response(problem="http_header")
    response = Response(int(words[1]), _headers(lines[1:]))
    if not with_body:
        return response
    try:
        response.body = _decode(body, response.headers, max_bytes)
    except _Undecodable as error:
        response.problem = str(error)
    return response


def payloads(block: bytes, max_bytes: int) -> Iterator[bytes]:
    """Yield the body of an HTTP message as it was sent, then the body after each decoding.

    Stops at a decoding that fails or exceeds `max_bytes`. A block that is not an HTTP message is yielded whole.
    """
    if not block.startswith(b"HTTP/"):
        yield block
        return
    head, body = _split(block)
    if head == block:  # the header has no end
        return
    yield body
    try:
        for encoding in _encodings(_headers(head.split(b"\n")[1:])):
            body = _decode_one(body, encoding, max_bytes)
            yield body
    except _Undecodable:
        return


def body_start(block: bytes, size: int) -> bytes:
    """Return the first `size` bytes of the decoded body, or fewer if decoding fails."""
    head, body = _split(block)
    body = body[: _ENOUGH * size]
    for encoding in _encodings(_headers(head.split(b"\n")[1:])):
        try:
            body = _decode_one(body, encoding, size)
        except _Undecodable as error:
            body = error.decoded
    return body[:size]


def _split(block: bytes) -> tuple[bytes, bytes]:
    """Split a message into head and body at the first empty line. Line breaks may be CRLF or LF."""
    crlf, lf = block.find(b"\r\n\r\n", 0, _MAX_HEAD), block.find(b"\n\n", 0, _MAX_HEAD)
    if crlf >= 0 and (lf < 0 or crlf < lf):
        return block[:crlf], block[crlf + 4 :]
    if lf >= 0:
        return block[:lf], block[lf + 2 :]
    return block[:_MAX_HEAD], b""


def _headers(lines: list[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    last = None
    for line in lines:
        if line[:1] in (b" ", b"\t") and last:
            found[last] += " " + line.decode("latin-1").strip()
            continue
        name, colon, value = line.decode("latin-1").partition(":")
        name = name.strip().lower()
        if colon and name and name not in found:
            found[name] = value.strip()
            last = name
        else:
            last = None
    return found


def _decode(body: bytes, headers: dict[str, str], max_bytes: int) -> bytes:
    for encoding in _encodings(headers):
        body = _decode_one(body, encoding, max_bytes)
    if len(body) > max_bytes:
        raise _Undecodable("too_large")
    return body


def _encodings(headers: dict[str, str]) -> list[str]:
    """Return the encodings of the body, the outermost first."""
    names = f"{headers.get('content-encoding', '')},{headers.get('transfer-encoding', '')}".lower().split(",")
    return [name.strip() for name in reversed(names) if name.strip()]


def _decode_one(body: bytes, encoding: str, max_bytes: int) -> bytes:
    return _join_chunks(body) if encoding == "chunked" else _unpack(body, encoding, max_bytes)


def _join_chunks(body: bytes) -> bytes:
    """Join the chunks of a body.

    If the first line is not a chunk size, the body was joined before it was archived, and it is returned unchanged.
    """
    chunks: list[bytes] = []
    offset = 0
    while True:
        end = body.find(b"\n", offset, offset + 1024)
        size = _chunk_size(body[offset:end]) if end >= 0 else None
        if size is None:
            if offset == 0:
                return body
            raise _Undecodable("bad_chunks", b"".join(chunks))
        if size == 0:
            return b"".join(chunks)
        chunk = body[end + 1 : end + 1 + size]
        chunks.append(chunk)
        offset = end + 1 + size
        if len(chunk) < size:
            raise _Undecodable("bad_chunks", b"".join(chunks))
        if body[offset : offset + 2] == b"\r\n":
            offset += 2
        elif body[offset : offset + 1] == b"\n":
            offset += 1
        elif offset < len(body):
            raise _Undecodable("bad_chunks", b"".join(chunks))
        if offset >= len(body):  # only the last chunk, of size 0, is missing
            return b"".join(chunks)


def _chunk_size(line: bytes) -> int | None:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
        return None
    return int(digits, 16)


def _unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decode one content encoding.

    A body without the encoding's magic bytes was decoded before it was archived, and it is returned unchanged.
    """
    if encoding in ("gzip", "x-gzip"):
        return _inflate(body, 31, max_bytes) if body[:2] == b"\x1f\x8b" else body
    if encoding == "deflate":
        zlib_mark = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        return _inflate(body, 15 if zlib_mark else -15, max_bytes) if body[:1] != b"<" else body
    if encoding == "br":
        return _read_stream(brotli_reader, body, max_bytes) if body and body.lstrip()[:1] != b"<" else body
    if encoding == "zstd":
        return _read_stream(zstd_reader, body, max_bytes) if body[:4] == b"\x28\xb5\x2f\xfd" else body
    return body  # identity, and all unknown encodings


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    room = max_bytes
    while body:
        unpacker = zlib.decompressobj(window)
        try:
            piece = unpacker.decompress(body, room + 1)
        except zlib.error:
            raise _Undecodable("bad_encoding", b"".join(pieces)) from None
        pieces.append(piece)
        if len(piece) > room:
            raise _Undecodable("too_large", b"".join(pieces))
        if not unpacker.eof:
            raise _Undecodable("bad_encoding", b"".join(pieces))
        room -= len(piece)
        body = unpacker.unused_data if window == 31 and unpacker.unused_data[:2] == b"\x1f\x8b" else b""
    return b"".join(pieces)


def _read_stream(reader: Callable[[Any], Any], body: bytes, max_bytes: int) -> bytes:
    try:
        found: bytes = reader(io.BytesIO(body)).read(max_bytes + 1)
    except (OSError, ValueError):
        raise _Undecodable("bad_encoding") from None
    if len(found) > max_bytes:
        raise _Undecodable("too_large", found)
    if not found:
        raise _Undecodable("bad_encoding")
    return found
