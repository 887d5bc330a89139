"""Streams that can only be read onwards (one gzip stream over many records, a packed member of a zip) as files with places.

What was read last stays in a ring on disk, so that reading can step back; a step back beyond it starts over. A stream that is
let go of is parked: whoever opens it next, for a later piece of the same archive, goes on where it stood.
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

RING_BYTES = 256 << 20  # of the stream, on disk
JUMP_BYTES = 128 << 20  # a longer step onwards leaves the ring empty
PARKED = 2  # streams that wait
_CHUNK = 1 << 16  # at most, and always asked for so, that damage ends a stream at the same place however it is read

# RuntimeError: a member that is encrypted, or packed in a way that this machine does not know
_BREAKS = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError)
_parked: dict[Any, Sequential] = {}
_lock = threading.Lock()


def sequential(key: Any, start: Callable[[], Any]) -> Sequential:
    """Return the stream that is parked under this key, or a new one; `start` opens it at its beginning, also again."""
    with _lock:
        stream = _parked.pop(key, None)
    return stream or Sequential(key, start)


class Sequential:
    """A stream as a file. Where it breaks off reading raises OSError; what comes before can be read."""

    def __init__(self, key: Any, start: Callable[[], Any]):
        self.key, self.start = key, start
        self.ring = tempfile.TemporaryFile(prefix="vlmdata-stream-")  # noqa: SIM115
        self.place = 0
        self._begin()

    def __enter__(self) -> Sequential:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._park()
        else:
            self.close()

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("where the stream ends is not known")
        self.place = offset + (self.place if whence == io.SEEK_CUR else 0)
        return self.place

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only where the stream ends or breaks off."""
        found = b""
        while len(found) < size:
            try:
                data = self._held(size - len(found))
            except ConnectionError:
                raise
            except OSError:
                if found:
                    return found
                raise
            if not data:
                break
            found += data
            self.place += len(data)
        return found

    def close(self) -> None:
        """Let go of the stream for good."""
        self._end()
        self.ring.close()

    def _park(self) -> None:
        self.place = 0
        with _lock:
            closing = [_parked.pop(self.key, None)]
            _parked[self.key] = self
            if len(_parked) > PARKED:
                closing.append(_parked.pop(next(iter(_parked))))
        for stream in closing:
            if stream is not None:
                stream.close()

    def _begin(self) -> None:
        self.first = self.last = 0  # the ring holds [first, last)
        self.head = b""  # the first chunk stays at hand, for who looks what the stream is
        self.failure: str | None = None
        self.stream: Any = None

    def _end(self) -> None:
        if self.stream is not None:
            self.stream.close()

    def _held(self, size: int) -> bytes:
        """Return bytes from the place on, none where the stream ends."""
        place = self.place
        if place < len(self.head):
            return self.head[place : place + size]
        if place < self.first:
            self._end()
            self._begin()
        far = place - self.last > JUMP_BYTES
        while self.last + _CHUNK <= place if far else self.last <= place:
            chunk = self._more()
            if not chunk:
                return b""
            self._keep(chunk, only=far)
        if far:
            return self._held(size)
        return self._from_ring(place, min(size, self.last - place))

    def _more(self) -> bytes:
        if self.failure is None:
            try:
                self.stream = self.stream or self.start()
                found: bytes = self.stream.read1(_CHUNK)  # what comes before damage is not lost with it
                return found
            except ConnectionError:
                raise
            except _BREAKS as error:
                self.failure = one_line(error)
        raise OSError(self.failure)

    def _keep(self, chunk: bytes, *, only: bool) -> None:
        """Put a chunk into the ring; `only` it: what comes before is not written, for nobody will ask for it."""
        self.head = self.head or chunk
        if only:
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

    def _from_ring(self, place: int, size: int) -> bytes:
        at = place % RING_BYTES
        self.ring.seek(at)
        data = self.ring.read(min(size, RING_BYTES - at))
        if len(data) < size:
            self.ring.seek(0)
            data += self.ring.read(size - len(data))
        return data
