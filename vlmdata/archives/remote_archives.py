"""Archives of other machines, read by ranges as if they lay here: s3://, https:// and whatever else fsspec opens."""

from __future__ import annotations

import io
import time
from typing import Any, BinaryIO

from vlmdata.readers.find_files import is_remote
from vlmdata.readers.open_file import raw_file
from vlmdata.untrusted import Failed, errors_as, one_line

PAUSES_S = (1, 4, 16)  # before a range is asked for again
FINAL = (FileNotFoundError, ValueError)  # of no use to ask again: not there, or a server without ranges
_BUFFER = 1 << 20  # bytes; the store is asked for 4 MiB at a time


def open_archive(path: str) -> BinaryIO:
    """Open an archive for reading at any place. A store that goes on failing raises ConnectionError, here or while read."""
    if not is_remote(path):
        return open(path, "rb")
    return io.BufferedReader(_Ranges(path), _BUFFER)


class _Ranges(io.RawIOBase):
    """A file of a store, whose failures are asked again and, when they last, told from damage in the file."""

    def __init__(self, path: str):
        self.path = path
        self.place = 0
        self.file: Any = self._lasting(lambda: raw_file(path))
        self.size: int = self.file.size or 0  # null: a server that neither knows it nor gives ranges

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        data = self._lasting(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()

    def _read(self, size: int) -> bytes:
        self.file.seek(min(self.place, self.size))
        return self.file.read(size)

    def _lasting(self, ask: Any) -> Any:
        for pause_s in (*PAUSES_S, None):
            try:
                with errors_as(Failed, passes=FINAL):  # each store has its own
                    return ask()
            except FINAL as error:
                raise ConnectionError(f"{self.path}: {one_line(error)}") from None
            except Failed as failed:
                (cause,) = failed.args
                if pause_s is None:
                    raise ConnectionError(f"{self.path}: {one_line(cause)}") from cause
                time.sleep(pause_s)
        raise AssertionError
