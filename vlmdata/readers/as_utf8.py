"""Map any bytes to valid UTF-8 and back, for readers that accept only UTF-8.

A byte that is not UTF-8 becomes one of the last characters of Unicode's last private plane. If the stream itself holds such a
character, each of its bytes is mapped too, so that the mapping can be reversed exactly.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import Any

WRONG = "\udc80"  # marks bytes that do not decode; decoded text cannot hold this character
codecs.register_error("vlmdata.wrong", lambda error: (WRONG, error.end))  # type: ignore[attr-defined]
MOST = 4 << 20  # bytes to read in search of the end of a line
_FIRST = 0x10FF00  # code point of byte 0; the other 255 bytes have the next code points
_STRANGE = re.compile("[\udc80-\udcff\U0010ff80-\U0010ffff]")
_MARKED = re.compile(b"\xf4\x8f[\xbe\xbf][\x80-\xbf]")
_MARK = b"\xf4\x8f"  # the UTF-8 form of every mapped byte begins with these two bytes


class InUtf8(io.RawIOBase):
    """A UTF-16 or UTF-32 stream, converted to UTF-8.

    Bytes of the stream that cannot be decoded become bytes that are not UTF-8. The result is bytes and not text,
    because Python splits bytes into lines only at \\n, but splits text also at U+2028, which JSON may hold.
    """

    def __init__(self, stream: Any, encoding: str) -> None:
        self._text: Any = codecs.getreader(encoding)(stream, "vlmdata.wrong")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the UTF-8 form of up to `size` bytes of the stream, or b"" at the end."""
        text = self._text.read(size)
        if not text and self._text.bytebuffer:  # the file ends inside a character
            self._text.bytebuffer = b""
            text = WRONG
        return text.encode("utf-8", "surrogatepass")


class AsUtf8(io.RawIOBase):
    """Reads a stream of any bytes as valid UTF-8. `is_marked` is true once a byte was mapped to a private character."""

    def __init__(self, source: Any) -> None:
        self.is_marked = False
        self._source = source
        self._tail = b""  # bytes that were read and may end inside a character
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or b"" at the end."""
        left = b""
        if len(self._ready) < size:  # a row that spans a short block would seem too long
            left, self._ready = bytes(self._ready), memoryview(b"")
        while not self._ready:
            part = self._source.read(size) or b""
            data = self._tail + part
            end = data.rfind(b"\n") + 1 if part and len(data) < MOST else len(data)  # a line end is never inside a character
            self._tail = data[end:]
            if not part and not data:
                return left
            self._ready = memoryview(left + self._utf8(data[:end]))
        size = len(self._ready) if size < 0 else size
        block, self._ready = self._ready[:size], self._ready[size:]
        return bytes(block)

    def _utf8(self, data: bytes) -> bytes:
        try:
            data.decode()
            if _MARK not in data:
                return data
        except UnicodeDecodeError:
            pass
        self.is_marked = True
        return _STRANGE.sub(_mark, data.decode("utf-8", "surrogateescape")).encode()


def original_bytes(data: bytes) -> bytes:
    """Return the original bytes of a piece of an `AsUtf8` stream. The piece must not begin inside a character."""
    return _MARKED.sub(lambda found: bytes([ord(found[0].decode()) - _FIRST]), data) if _MARK in data else data


def _mark(found: re.Match[str]) -> str:
    return "".join(chr(_FIRST + byte) for byte in found[0].encode("utf-8", "surrogateescape"))
