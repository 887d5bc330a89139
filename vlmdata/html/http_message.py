"""The HTTP response inside an archive record: status, headers, and the body with its chunks and compression undone."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field

from fastwarc.stream_io import BrotliReader, ZstdReader

_MAX_HEAD = 262_144  # bytes


@dataclass(slots=True)
class Response:
    """`problem` is null, or why the body cannot be had: http_header, bad_chunks, bad_encoding, too_large."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case; the first of equal ones
    body: bytes = b""
    problem: str | None = None

    @property
    def media_type(self) -> str:
        """Return the media type without parameters, lower case, empty where none is given."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """Return the charset parameter of Content-Type."""
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip("\"'") or None
        return None


class _Undecodable(Exception):
    """Holds the problem's name."""


def parse_response(block: bytes, *, max_bytes: int, with_body: bool = True) -> Response:
    """Read a response as a server sent it. A body longer than `max_bytes` when unpacked is refused before it is built."""
    head, body = _split(block)
    lines = head.split(b"\n")
    words = lines[0].split(None, 2)
    if not words or not words[0].startswith(b"HTTP/") or len(words) < 2 or not words[1].isdigit():
        return Response(problem="http_header")
    response = Response(int(words[1]), _headers(lines[1:]))
    if not with_body:
        return response
    try:
        response.body = _decoded(body, response.headers, max_bytes)
    except _Undecodable as error:
        response.problem = str(error)
    return response


def _split(block: bytes) -> tuple[bytes, bytes]:
    """Part head and body at the first empty line, ended by either kind of line break."""
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


def _decoded(body: bytes, headers: dict[str, str], max_bytes: int) -> bytes:
    transfer = [w.strip().lower() for w in headers.get("transfer-encoding", "").split(",") if w.strip()]
    content = [w.strip().lower() for w in headers.get("content-encoding", "").split(",") if w.strip()]
    for encoding in reversed([*content, *transfer]):
        body = _joined(body) if encoding == "chunked" else _unpacked(body, encoding, max_bytes)
    if len(body) > max_bytes:
        raise _Undecodable("too_large")
    return body


def _joined(body: bytes) -> bytes:
    """Join chunks. A body whose first line is no chunk size was unchunked before it was archived, and is left as it is."""
    chunks: list[bytes] = []
    place = 0
    while True:
        end = body.find(b"\n", place, place + 1024)
        size = _chunk_size(body[place:end]) if end >= 0 else None
        if size is None:
            if place == 0:
                return body
            raise _Undecodable("bad_chunks")
        if size == 0:
            return b"".join(chunks)
        chunk = body[end + 1 : end + 1 + size]
        chunks.append(chunk)
        place = end + 1 + size
        if len(chunk) < size:
            raise _Undecodable("bad_chunks")
        if body[place : place + 2] == b"\r\n":
            place += 2
        elif body[place : place + 1] == b"\n":
            place += 1
        elif place < len(body):
            raise _Undecodable("bad_chunks")
        if place >= len(body):  # the last chunk, of size 0, is missing: nothing of the page is
            return b"".join(chunks)


def _chunk_size(line: bytes) -> int | None:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
        return None
    return int(digits, 16)


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo one content encoding. A body that lacks the encoding's mark was unpacked before it was archived."""
    if encoding in ("gzip", "x-gzip"):
        return _inflated(body, 31, max_bytes) if body[:2] == b"\x1f\x8b" else body
    if encoding == "deflate":
        zlib_mark = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        return _inflated(body, 15 if zlib_mark else -15, max_bytes) if body[:1] != b"<" else body
    if encoding == "br":
        return _streamed(BrotliReader, body, max_bytes) if body and body.lstrip()[:1] != b"<" else body
    if encoding == "zstd":
        return _streamed(ZstdReader, body, max_bytes) if body[:4] == b"\x28\xb5\x2f\xfd" else body
    return body  # identity, and whatever else a server says


def _inflated(body: bytes, window: int, max_bytes: int) -> bytes:
    pieces, room = [], max_bytes
    while body:
        unpacker = zlib.decompressobj(window)
        try:
            piece = unpacker.decompress(body, room + 1)
        except zlib.error:
            raise _Undecodable("bad_encoding") from None
        if len(piece) > room:
            raise _Undecodable("too_large")
        if not unpacker.eof:
            raise _Undecodable("bad_encoding")
        pieces.append(piece)
        room -= len(piece)
        body = unpacker.unused_data if window == 31 and unpacker.unused_data[:2] == b"\x1f\x8b" else b""
    return b"".join(pieces)


def _streamed(reader: type, body: bytes, max_bytes: int) -> bytes:
    try:
        found: bytes = reader(io.BytesIO(body)).read(max_bytes + 1)
    except (OSError, ValueError):
        raise _Undecodable("bad_encoding") from None
    if len(found) > max_bytes:
        raise _Undecodable("too_large")
    if not found:
        raise _Undecodable("bad_encoding")
    return found
