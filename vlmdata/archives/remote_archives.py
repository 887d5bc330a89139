"""Opens remote archives (s3://, https:// and all other protocols of fsspec) like local files. They are read in ranges."""

from __future__ import annotations

import io
import time
from typing import Any, BinaryIO

from vlmdata.readers.find_files import is_remote
from vlmdata.readers.open_file import raw_file
from vlmdata.untrusted import Failed, errors_as, one_line

PAUSES_S = (1, 4, 16)  # seconds to wait before each retry of a range
FINAL = (FileNotFoundError, ValueError)  # not retried: a missing file, or a server without ranges
_BUFFER = 1 << 20  # bytes of the local buffer; a request to the store reads 4 MiB


def open_archive(path: str) -> BinaryIO:
    """Open an archive for reading at any offset. Opening and reading raise ConnectionError if a remote store fails."""
    if not is_remote(path):
        return open(path, "rb")
    return io.BufferedReader(_Ranges(path), _BUFFER)


class _Ranges(io.RawIOBase):
    """A remote file that retries failed reads.

    It raises ConnectionError if all retries fail. The reader of the archive takes any other OSError as damage to the archive.
    """

    def __init__(self, path: str):
        self.path = path
        self.offset = 0
        self.file: Any = self._with_retries(lambda: raw_file(path))
        self.size: int = self.file.size or 0  # 0 if the server does not state the size and does not serve ranges

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.offset, io.SEEK_END: self.size}[whence]
        self.offset = start + offset
        return self.offset

    def tell(self) -> int:
        return self.offset

    def readinto(self, buffer: Any) -> int:
        data = self._with_retries(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self.offset += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()

    def _read(self, size: int) -> bytes:
        self.file.seek(min(self.offset, self.size))
        return self.file.read(size)

    def _with_retries(self, request: Any) -> Any:
        for pause_s in (*PAUSES_S, None):
            try:
                with errors_as(Failed, passes=FINAL):  # each store raises its own errors
                    return request()
            except FINAL as error:
                raise ConnectionError(f"{self.path}: {one_line(error)}") from None
            except Failed as failed:
                (cause,) = failed.args
                if pause_s is None:
                    raise ConnectionError(f"{self.path}: {one_line(cause)}") from cause
                time.sleep(pause_s)
        raise AssertionError
