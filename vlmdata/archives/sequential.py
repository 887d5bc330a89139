"""Makes forward-only streams seekable, such as a gzip stream over many records or a compressed member of a zip.

A ring buffer on disk holds the latest bytes of the stream, so that a reader can seek back. A seek further back restarts the
stream. A stream is parked when its `with` block ends. The next call of `sequential` with the same key, for a later piece of the
archive, gets the parked stream and continues where it stopped.
"""

from __future__ import annotations

import io
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from vlmdata.untrusted import one_line

RING_BYTES = 256 << 20  # last bytes of the stream that are kept on disk
JUMP_BYTES = 128 << 20  # a longer seek forward leaves the ring empty
PARKED = 2  # maximum number of streams that are parked at once
_CHUNK = 1 << 16  # bytes of every read; with one fixed size, damage always ends a stream at the same offset

# RuntimeError: a zip member is encrypted, or compressed with a method that this machine does not support
_BREAKS = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError)
_parked: dict[Any, Sequential] = {}
_lock = threading.Lock()


def sequential(key: Any, start: Callable[[], Any]) -> Sequential:
    """Return the stream that an earlier `with` block left open under this key, or a new stream.

    `start` opens the underlying stream at its beginning. It is called again when a seek restarts the stream.
    """
    with _lock:
        stream = _parked.pop(key, None)
    return stream or Sequential(key, start)


class Sequential:
    """A forward-only stream as a seekable file.

    Reading raises OSError where the stream breaks off. All bytes before that point can be read.
    """

    def __init__(self, key: Any, start: Callable[[], Any]):
        self.key, self.start = key, start
        self.ring = tempfile.TemporaryFile(prefix="vlmdata-stream-")  # noqa: SIM115
        self.offset = 0
        self._begin()

    def __enter__(self) -> Sequential:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._park()
        else:
            self.close()

    def tell(self) -> int:
        """Return the offset of the next byte to read."""
        return self.offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the offset and return it. The stream itself moves at the next read. Raises UnsupportedOperation for SEEK_END."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("cannot seek from the end, because the size of the stream is not known")
        self.offset = offset + (self.offset if whence == io.SEEK_CUR else 0)
        return self.offset

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer if the stream ends or breaks off."""
        found = b""
        while len(found) < size:
            try:
                data = self._read_some(size - len(found))
            except ConnectionError:
                raise
            except OSError:
                if found:
                    return found
                raise
            if not data:
                break
            found += data
            self.offset += len(data)
        return found

    def close(self) -> None:
        """Close the stream, so that no later call of `sequential` can continue it."""
        self._end()
        self.ring.close()

    def _park(self) -> None:
        self.offset = 0
        with _lock:
            closing = [_parked.pop(self.key, None)]
            _parked[self.key] = self
            if len(_parked) > PARKED:
                closing.append(_parked.pop(next(iter(_parked))))
        for stream in closing:
            if stream is not None:
                stream.close()

    def _begin(self) -> None:
        self.first = self.last = 0  # the ring holds the bytes [first, last) of the stream
        self.head = b""  # the first chunk, kept for callers that detect the format
        self.failure: str | None = None
        self.stream: Any = None

    def _end(self) -> None:
        if self.stream is not None:
            self.stream.close()

    def _read_some(self, size: int) -> bytes:
        """Return at most `size` bytes at the current offset, or no bytes at the end of the stream."""
        offset = self.offset
        if offset < len(self.head):
            return self.head[offset : offset + size]
        if offset < self.first:
            self._end()
            self._begin()
        far = offset - self.last > JUMP_BYTES
        while self.last + _CHUNK <= offset if far else self.last <= offset:
            chunk = self._next_chunk()
            if not chunk:
                return b""
            self._append(chunk, skip=far)
        if far:
            return self._read_some(size)
        return self._from_ring(offset, min(size, self.last - offset))

    def _next_chunk(self) -> bytes:
        if self.failure is None:
            try:
                self.stream = self.stream or self.start()
                found: bytes = self.stream.read1(_CHUNK)  # `read1` returns the bytes before damage
                return found
            except ConnectionError:
                raise
            except _BREAKS as error:
                self.failure = one_line(error)
        raise OSError(self.failure)

    def _append(self, chunk: bytes, *, skip: bool) -> None:
        """Append a chunk to the ring buffer. With `skip`, only count its bytes, because the reader is far past the chunk."""
        self.head = self.head or chunk
        if skip:
            self.last += len(chunk)
            self.first = self.last
            return
        at = self.last % RING_BYTES
        self.ring.seek(at)
        self.ring.write(chunk[: RING_BYTES - at])
        if len(chunk) > RING_BYTES - at:
            self.ring.seek(0)
            self.ring.write(chunk[RING_BYTES - at :])
        self.last += len(chunk)
        self.first = max(self.first, self.last - RING_BYTES)

    def _from_ring(self, offset: int, size: int) -> bytes:
        at = offset % RING_BYTES
        self.ring.seek(at)
        data = self.ring.read(min(size, RING_BYTES - at))
        if len(data) < size:
            self.ring.seek(0)
            data += self.ring.read(size - len(data))
        return data
