"""Tars behind addresses, by fsspec: read in blocks of 1 MB that a bounded local cache keeps, fetched ahead in threads.

The cache is a folder that any number of processes share: a block is a file that appears whole or not at all, one process
fetches it while others wait, and the oldest go when it is full.
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

import fsspec
import xxhash

BLOCK = 1 << 20
MOST_BLOCKS = 16  # of one request
FETCHES = 8  # requests at once, of one process
_LOCKS = 256


class BlockCache:
    """A folder of blocks, kept to about `max_bytes`: it is swept after each twentieth of that has been written."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._written = max_bytes  # sweep at the first write too: what earlier runs left counts

    def path(self, mark: str, number: int) -> Path:
        return self.folder / mark[:2] / f"{mark}-{number}"

    def put(self, mark: str, number: int, data: bytes) -> None:
        """Add a block."""
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
        """Hold one of 256 locks between all threads and processes; it goes with the process."""
        with _lock(self.folder / f"lock-{xxhash.xxh3_64_intdigest(name.encode()) % _LOCKS}"):
            yield

    def _sweep(self) -> None:
        """Remove the blocks read longest ago until nine tenths of the limit are left."""
        with _lock(self.folder / "lock-sweep"):  # not one of the 256: this thread holds one of those
            found = []
            for path in self.folder.glob("??/*"):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                if not path.name.startswith(".") or stat.st_mtime < time.time() - 3600:  # else it is being written
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
    """Opens remote tars. One of it serves all readers of a process; a forked process makes its connections anew."""

    def __init__(self, cache: BlockCache) -> None:
        self.cache = cache
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None
        self._files: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "_process": 0, "_pool": None, "_files": {}}

    def open(self, address: str) -> "RemoteTar":
        """Open a tar. Raises OSError if it is not there."""
        self._renew()
        protocol = address.partition("://")[0]
        if protocol not in self._files:
            self._files[protocol] = fsspec.core.url_to_fs(address, skip_instance_cache=True)[0]
        return RemoteTar(address, self._files[protocol], self.cache)

    def ahead(self, tar: "RemoteTar", spans: list[tuple[int, int]]) -> None:
        """Fetch these (offset, size) of a tar soon."""
        self._renew()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(FETCHES, "vlmdata-fetch")
        for first, count in tar.missing(spans):
            self._pool.submit(tar.fetch, first, count)

    def _renew(self) -> None:
        if self._process != os.getpid():  # connections and threads do not survive a fork
            self._process, self._pool, self._files = os.getpid(), None, {}


class RemoteTar:
    """A tar behind an address; `size` and `pread(size, offset)` as of a local one."""

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
        """Read, from the cache where it has the blocks, fewer bytes at the end. Raises OSError when the store fails."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        first, last = offset // BLOCK, (offset + size - 1) // BLOCK
        parts = [self._block(number) for number in range(first, last + 1)]
        start = offset - first * BLOCK
        return (parts[0] if len(parts) == 1 else b"".join(parts))[start : start + size]

    def missing(self, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Runs (first, count) of blocks that these (offset, size) need and the cache does not have."""
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
        """Fetch a run of blocks by one request into the cache, unless another process just did; return the first."""
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
            os.utime(path)  # read now: not the next to go
        except FileNotFoundError:
            return None
        return data if len(data) == min(BLOCK, self.size - number * BLOCK) else None  # a damaged one is fetched again
