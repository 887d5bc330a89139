"""A store in a bucket of an object store, through fsspec."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from vlmdata.endpoint import check_answers
from vlmdata.engine.store.blob_cache import BlobCache
from vlmdata.engine.store.lease import Lease
from vlmdata.engine.store.store_protocol import LineWriter, inside
from vlmdata.errors import Unreachable
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.step import RecipeError
from vlmdata.untrusted import STORE_ADVICE, errors_as, one_line, store_advice


class ObjectStore:
    """A store in a bucket.

    Data is uploaded from a complete local file, because an interrupted fsspec `open` publishes the part that was written.
    """

    def __init__(self, url: str):
        import fsspec

        self.url = url.rstrip("/")
        self.fs: Any
        self.fs, self.root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        self._lease: Lease | None = None
        self._blobs = BlobCache(self.read, self._read_range)

    def probe(self) -> None:
        """Raise RecipeError if the store lets a name be created twice, or if nothing can be written to the store."""
        name = f"work/probe-{uuid.uuid4().hex}"
        with errors_as(self._unusable):
            check_answers(self.fs, self.url)
            refused = self.put_new(name, b"first") and not self.put_new(name, b"second")
            self.delete(name)
        if not refused:
            raise RecipeError(
                f"{self.url}: this store lets a second writer replace a file. Use a store that supports If-None-Match"
            )

    def _unusable(self, error: Exception) -> Exception:
        """Return the error to raise if the store cannot be written. Each store raises errors of its own library."""
        if isinstance(error, RecipeError) or is_short_of_memory(error):
            return error
        if isinstance(error, Unreachable):
            return RecipeError(error)
        advice = store_advice(error)
        if "endpoint" in str(error).lower():
            return RecipeError(
                f"{self.url}: cannot reach this store: {one_line(error).rstrip('.')}. {STORE_ADVICE['Endpoint']}"
            )
        if advice is None and isinstance(error, TypeError | NotImplementedError | ValueError):
            why = f"this store does not support exclusive creation ({one_line(error)})"
            return RecipeError(f"{self.url}: {why}. Use a local folder")
        return RecipeError(f"{self.url}: cannot write to this store: {one_line(error)}{advice or ''}")

    def _full(self, name: str) -> str:
        return f"{self.root}/{inside(name, self.url)}"

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(self._full(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return (self._blobs.read if name.endswith(".blob") else self._read_range)(name, offset, size)

    def _read_range(self, name: str, offset: int, size: int) -> bytes:
        return self.fs.cat_file(self._full(name), start=offset, end=offset + size)

    def open(self, name: str) -> IO[bytes]:
        return self.fs.open(self._full(name), "rb")

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(prefix="vlmdata-") as file:
            yield file
            file.flush()
            self.fs.put_file(file.name, self._full(name))

    def line_writer(self, folder: str) -> LineWriter:
        return _FilePerLine(self, folder)

    def put_new(self, name: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(self._full(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self._full(name), data)

    def publish(self, name: str, target: str) -> None:
        self.fs.cp_file(self._full(name), self._full(target))

    def list(self, folder: str) -> list[str]:
        try:
            found = self.fs.ls(self._full(folder).rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        start = len(self.root) + 1
        return sorted(entry["name"][start:] for entry in found if entry["type"] == "file")

    def size(self, name: str) -> int:
        return self.fs.info(self._full(name))["size"]

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._full(name))

    def erase(self, name: str, spans: Sequence[tuple[int, int]]) -> None:
        with contextlib.suppress(FileNotFoundError):
            data = bytearray(self.read(name))
            for offset, size in spans:
                data[offset : offset + size] = bytes(size)
            self._blobs.forget(name)
            self.put(name, bytes(data))

    def folders(self, folder: str) -> Sequence[str]:
        try:
            found = self.fs.ls(self._full(folder), detail=True)
        except FileNotFoundError:
            return []
        start = len(self.root) + 1
        return sorted(entry["name"][start:] for entry in found if entry["type"] == "directory")

    def delete_folder(self, folder: str) -> None:
        self.fs.rm(self._full(folder), recursive=True)

    @contextlib.contextmanager
    def alone(self, name: str, waits: Callable[[str], None]) -> Iterator[None]:
        with Lease(self, name, waits) as self._lease:
            yield

    def is_alone(self) -> bool:
        return self._lease is not None and self._lease.is_held()

    def delete_drafts(self, *folders: str) -> None:
        """Do nothing, because an object store never shows an incomplete object."""


class _FilePerLine:
    """A LineWriter that stores each line as an object, because objects cannot be appended to."""

    def __init__(self, store: ObjectStore, folder: str):
        self._store = store
        self._folder = folder

    def add(self, line: bytes) -> None:
        self._store.put(f"{self._folder}/{uuid.uuid4().hex}.jsonl", line + b"\n")

    def close(self) -> None:
        """Do nothing, because each object is durable."""
