"""Bytes in whatever encoding as valid UTF-8 and back, for readers that want text where all that matters are the bytes.

A byte that is no UTF-8 becomes one of the last characters of Unicode's last private plane; so does each byte of such a
character where the stream itself holds one, which makes the way back exact.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import Any

WRONG = "\udc80"  # stands for bytes that do not decode: no text has it that does
codecs.register_error("vlmdata.wrong", lambda error: (WRONG, error.end))  # type: ignore[attr-defined]
MOST = 4 << 20  # bytes read on for the end of a line
_FIRST = 0x10FF00  # plus the byte
_STRANGE = re.compile("[\udc80-\udcff\U0010ff80-\U0010ffff]")
_MARKED = re.compile(b"\xf4\x8f[\xbe\xbf][\x80-\xbf]")
_MARK = b"\xf4\x8f"  # all of them begin so


class InUtf8(io.RawIOBase):
    """A stream of text of two or four bytes a character in UTF-8. What does not decode there does not decode here either.

    Lines of UTF-8 end at \\n alone; those of a decoder also end where JSON may hold U+2028.
    """

    def __init__(self, stream: Any, encoding: str) -> None:
        self._text: Any = codecs.getreader(encoding)(stream, "vlmdata.wrong")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the text of up to `size` bytes, none only at the end."""
        text = self._text.read(size)
        if not text and self._text.bytebuffer:  # the file ends within a character
            self._text.bytebuffer = b""
            text = WRONG
        return text.encode("utf-8", "surrogatepass")


class AsUtf8(io.RawIOBase):
    """A stream of bytes as UTF-8. `is_marked` once anything had to be written differently."""

    def __init__(self, source: Any) -> None:
        self.is_marked = False
        self._source = source
        self._tail = b""  # read, and perhaps the beginning of a character
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, none only at the end."""
        left = b""
        if len(self._ready) < size:  # goes along with what follows: a row that reached over a short block would be too long
            left, self._ready = bytes(self._ready), memoryview(b"")
        while not self._ready:
            part = self._source.read(size) or b""
            data = self._tail + part
            end = data.rfind(b"\n") + 1 if part and len(data) < MOST else len(data)  # no character holds the end of a line
            self._tail = data[end:]
            if not part and not data:
                return left
            self._ready = memoryview(left + self._utf8(data[:end]))
        size = len(self._ready) if size < 0 else size
        given, self._ready = self._ready[:size], self._ready[size:]
        return bytes(given)

    def _utf8(self, data: bytes) -> bytes:
        try:
            data.decode()
            if _MARK not in data:
                return data
        except UnicodeDecodeError:
            pass
        self.is_marked = True
        return _STRANGE.sub(_mark, data.decode("utf-8", "surrogateescape")).encode()


def as_it_was(data: bytes) -> bytes:
    """Undo what the stream did to a piece of it that does not begin within a character."""
    return _MARKED.sub(lambda found: bytes([ord(found[0].decode()) - _FIRST]), data) if _MARK in data else data


def _mark(found: re.Match[str]) -> str:
    return "".join(chr(_FIRST + byte) for byte in found[0].encode("utf-8", "surrogateescape"))
