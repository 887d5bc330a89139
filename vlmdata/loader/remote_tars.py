"""Reads remote tars through fsspec, in blocks of 1 MB. Threads prefetch the blocks, and a bounded local cache keeps them.

The cache is a folder that any number of processes may share. A block is a file that is written atomically. One process fetches
a block while others wait for it. When the cache is full, the least recently read blocks are removed.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

BLOCK = 1 << 20
MOST_BLOCKS = 16  # most blocks in one request
FETCHES = 8  # concurrent requests of one process
_LOCKS = 256


class BlockCache:
    """A folder of blocks, limited to about `max_bytes` bytes.

    Whenever a twentieth of `max_bytes` has been written, old blocks are removed.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._written = max_bytes  # the first write removes old blocks, because earlier runs left some

    def path(self, mark: str, number: int) -> Path:
        """Return the file of block `number` of the tar with the hash `mark`."""
        return self.folder / mark[:2] / f"{mark}-{number}"

    def put(self, mark: str, number: int, data: bytes) -> None:
        """Write a block to the cache. Remove old blocks if enough bytes have been written since the last removal."""
        path = self.path(mark, number)
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        part.write_bytes(data)
        os.replace(part, path)
        self._written += len(data)
        if self._written > self.max_bytes // 20:
            self._written = 0
            self._sweep()

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock for `name`, one of 256 locks that all threads and processes share.

        A process that dies releases its locks.
        """
        with _lock(self.folder / f"lock-{xxhash.xxh3_64_intdigest(name.encode()) % _LOCKS}"):
            yield

    def _sweep(self) -> None:
        """Remove the least recently read blocks until the cache has at most nine tenths of its limit."""
        with _lock(self.folder / "lock-sweep"):  # a separate lock, because this thread holds one of the 256 locks
            found = []
            for path in self.folder.glob("??/*"):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                # a hidden file of the last hour may still be written by another process
                if not path.name.startswith(".") or stat.st_mtime < time.time() - 3600:
                    found.append((stat.st_mtime_ns, stat.st_size, path))
            total = sum(size for _, size, _ in found)
            for _, size, path in sorted(found):
                if total <= self.max_bytes * 0.9:
                    break
                path.unlink(missing_ok=True)
                total -= size


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class RemoteTars:
    """Opens remote tars. One instance serves all readers of a process; a forked process opens new connections."""

    def __init__(self, cache: BlockCache) -> None:
        self.cache = cache
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None
        self._files: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "_process": 0, "_pool": None, "_files": {}}

    def open(self, address: str) -> "RemoteTar":
        """Return an open tar. Raises OSError if the tar does not exist."""
        self._renew()
        protocol = address.partition("://")[0]
        if protocol not in self._files:
            import fsspec

            self._files[protocol] = fsspec.core.url_to_fs(address, skip_instance_cache=True)[0]
        return RemoteTar(address, self._files[protocol], self.cache)

    def ahead(self, tar: "RemoteTar", spans: list[tuple[int, int]]) -> None:
        """Start threads that fetch the blocks of these (offset, size) spans of a tar into the cache."""
        self._renew()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(FETCHES, "vlmdata-fetch")
        for first, count in tar.missing(spans):
            self._pool.submit(tar.fetch, first, count)

    def _renew(self) -> None:
        if self._process != os.getpid():  # connections and threads do not survive a fork
            self._process, self._pool, self._files = os.getpid(), None, {}


class RemoteTar:
    """An open remote tar. It has the attributes of `Tar`: `address`, `size` and `pread(size, offset)`."""

    def __init__(self, address: str, files: Any, cache: BlockCache) -> None:
        self.address = address
        self._files = files
        self._cache = cache
        self._path = files._strip_protocol(address)
        info = files.info(self._path)
        self.size = int(info["size"])
        version = [str(info[name]) for name in ("ETag", "etag", "mtime", "LastModified", "last_modified") if info.get(name)]
        self._mark = xxhash.xxh3_64_hexdigest(" ".join([address, str(self.size), *version]).encode())
        cache.path(self._mark, 0).parent.mkdir(parents=True, exist_ok=True)

    def pread(self, size: int, offset: int) -> bytes:
        """Return `size` bytes at `offset`, or fewer at the end of the tar.

        The blocks are read through the cache. Raises OSError if the store fails.
        """
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        first, last = offset // BLOCK, (offset + size - 1) // BLOCK
        parts = [self._block(number) for number in range(first, last + 1)]
        start = offset - first * BLOCK
        return (parts[0] if len(parts) == 1 else b"".join(parts))[start : start + size]

    def missing(self, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield (first block, count) for each run of adjacent blocks that the spans need and the cache does not have.

        Spans are (offset, size) in bytes. A run has at most MOST_BLOCKS blocks.
        """
        ends = [(offset, min(offset + size, self.size)) for offset, size in spans]
        needed = {number for offset, end in ends for number in range(offset // BLOCK, (end - 1) // BLOCK + 1)}
        run: list[int] = []
        for number in sorted(needed):
            if self._cache.path(self._mark, number).exists():
                continue
            if run and (number != run[-1] + 1 or len(run) == MOST_BLOCKS):
                yield run[0], len(run)
                run = []
            run.append(number)
        if run:
            yield run[0], len(run)

    def fetch(self, first: int, count: int) -> bytes:
        """Fetch a run of blocks into the cache in one request, and return the first block.

        If another process has just fetched the first block, return it from the cache.
        """
        with self._cache.locked(f"{self._mark}-{first}"):
            known = self._cached(first)
            if known is not None:
                return known
            start, end = first * BLOCK, min((first + count) * BLOCK, self.size)
            data = self._files.cat_file(self._path, start=start, end=end) if end > start else b""
            for number in range(count):
                block = data[number * BLOCK : (number + 1) * BLOCK]
                if block:
                    self._cache.put(self._mark, first + number, block)
            return data[:BLOCK]

    def _block(self, number: int) -> bytes:
        known = self._cached(number)
        return self.fetch(number, 1) if known is None else known

    def _cached(self, number: int) -> bytes | None:
        path = self._cache.path(self._mark, number)
        try:
            data = path.read_bytes()
            os.utime(path)  # record the time of the last read for the sweep
        except FileNotFoundError:
            return None
        return data if len(data) == min(BLOCK, self.size - number * BLOCK) else None  # a damaged block is fetched again
