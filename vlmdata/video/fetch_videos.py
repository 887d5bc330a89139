"""Fetches videos one at a time into temporary files, with the project's web client: address guard, robots.txt, rate limits."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import Any

from vlmdata.video.settings import VideoError
from vlmdata.web.client import Client, Fetched
from vlmdata.web.options import WebOptions
from vlmdata.web.rate_limiter import RateLimiter

_LOOK_S = 5.0  # time between checks that the client is alive


class _Sink(io.RawIOBase):
    """A file whose `write` raises nothing, because libcurl calls it. It keeps the first error, such as that of a full disk."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all bytes, unless an earlier write failed."""
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def truncate(self, size: int | None = None) -> int:
        return int(self._file.truncate(size))


class VideoFetcher:
    """Fetches addresses for one piece of a source. Use it in a `with` block."""

    def __init__(self, options: WebOptions) -> None:
        self._client = Client(options, RateLimiter(options))

    def __enter__(self) -> VideoFetcher:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    @contextmanager
    def fetched(self, url: str) -> Iterator[str]:
        """Yield the path of a temporary file that holds the body of an address, and delete it afterwards.

        Raises VideoError if the address cannot be fetched. The reasons are those of `download`: `http_404`, `too_large` ...
        """
        outcome: list[Fetched] = []
        ended = threading.Event()

        def done(found: Fetched) -> None:
            outcome.append(found)
            ended.set()

        with NamedTemporaryFile(prefix="vlmdata-", suffix=".video") as file:
            sink = _Sink(file)
            self._client.submit(url, done, sink)  # type: ignore[arg-type]
            while not ended.wait(_LOOK_S):
                if self._client.has_ended and not outcome:
                    raise RuntimeError("the web client ended early")
            if sink.error is not None:
                raise sink.error
            (found,) = outcome
            if found.failure is not None:
                last = f" at {found.final_url}" if found.final_url and found.final_url != url else ""
                raise VideoError(found.failure, f"the address cannot be fetched: {found.failure}{last}")
            file.flush()
            yield file.name
