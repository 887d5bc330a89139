"""Where results lie: a local folder or an object store, with exclusive creation and no partial result ever visible.

Names are relative to the dataset's folder, with forward slashes. Data files get a name that no other attempt has, so
nobody reads one before a record names it; records are made by exclusive creation, so the first attempt wins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec

from vlmdata.arguments import check_protocol
from vlmdata.engine.blobcache import BlobCache
from vlmdata.engine.lease import Lease, holder
from vlmdata.safe_path import Refused, real_path_inside
from vlmdata.step import RecipeError

KNOWN = 100_000  # names of a dataset's files that are remembered as its own
DRAFT = re.compile(r"\..+\.[0-9a-f]{32}")  # how LocalStore names a file until it is whole


class Store(Protocol):
    """What the engine asks of a place that holds a dataset."""

    url: str

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises FileNotFoundError."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return part of a file."""
        ...

    def new_file(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a data file for writing; it is durable when the block ends, and gone when the block raises."""
        ...

    def put_new(self, name: str, data: bytes) -> bool:
        """Create a record; return False, and change nothing, where one of this name exists."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a small file in one step, in place of what was there."""
        ...

    def publish(self, name: str, target: str) -> None:
        """Make a finished data file appear under another name too, in one step, in place of what was there."""
        ...

    def list(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted, each with the folder's name; none if there is no folder."""
        ...

    def size(self, name: str) -> int:
        """Return the bytes of a file. Raises FileNotFoundError."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""
        ...

    def erase(self, name: str, spans: Sequence[tuple[int, int]]) -> None:
        """Overwrite parts of a file, (offset, size), with zeros, durably; a file that is gone is no error."""
        ...

    def folders(self, folder: str) -> Sequence[str]:
        """Return the names of the folders in a folder, sorted, each with the folder's name."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        ...

    def alone(self, name: str, waits: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Hold a lock that one process at a time can hold. `waits` is told who holds it, where that is somebody else."""
        ...

    def is_alone(self) -> bool:
        """Say whether a lock that was taken is still held."""
        ...

    def delete_drafts(self, *folders: str) -> None:
        """Remove what writers left that were killed before their file had its name: in these folders, or wherever it is."""
        ...


def open_store(url: str | Path, *, probe: bool = True) -> Store:
    """Return the store at a path or fsspec URL. Raises RecipeError for one that cannot create exclusively.

    `probe`: try that, with three requests; readers need not, nor workers, whose driver has.
    """
    text = str(url)
    if "://" not in text or text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    check_protocol(text)
    store = ObjectStore(text)
    if probe:
        store.probe()
    return store


class LocalStore:
    """A folder on a file system that every worker sees under the same path."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        self.url = str(self.root)
        self._known: set[Path] = set()  # files that are no links out of the dataset

    def path(self, name: str) -> Path:
        """Return the absolute path of a file. Raises RecipeError for a name, or a link, that leads out of the dataset."""
        path = self.root / _inside(name, self.url)
        if path not in self._known:
            try:
                real_path_inside(str(path), self.url)
            except Refused:
                raise RecipeError(f"{self.url} names a file outside of the dataset: {name[:200]!r}, by a link") from None
            if len(self._known) < KNOWN:
                self._known.add(path)
        return path

    def read(self, name: str) -> bytes:
        with _open(self.path(name)) as file:
            return file.read()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with _open(self.path(name)) as file:
            there = os.fstat(file.fileno()).st_size - offset  # what is asked for may be a lie, and is reserved first
            return os.pread(file.fileno(), min(size, there), offset) if there > 0 else b""

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "x+b", buffering=1 << 20) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def put_new(self, name: str, data: bytes) -> bool:
        path = self.path(name)
        draft = self._draft(path, data)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        _sync(path.parent)
        return True

    def put(self, name: str, data: bytes) -> None:
        path = self.path(name)
        os.replace(self._draft(path, data), path)
        _sync(path.parent)

    def _draft(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with open(draft, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return draft

    def publish(self, name: str, target: str) -> None:
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        link = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        os.link(self.path(name), link)
        os.replace(link, path)
        link.unlink(missing_ok=True)  # replacing a file by a link to itself does nothing and leaves the link

    def list(self, folder: str) -> list[str]:
        try:
            names = os.listdir(self.path(folder))
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name}" if folder else name for name in names if not name.startswith("."))

    def size(self, name: str) -> int:
        return self.path(name).stat().st_size

    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def erase(self, name: str, spans: Sequence[tuple[int, int]]) -> None:
        with contextlib.suppress(FileNotFoundError), open(self.path(name), "r+b", buffering=0) as file:
            for offset, size in spans:
                os.pwrite(file.fileno(), bytes(size), offset)
            os.fsync(file.fileno())

    def folders(self, folder: str) -> Sequence[str]:
        path = self.path(folder)
        return sorted(f"{folder}/{one.name}" for one in path.iterdir() if one.is_dir()) if path.is_dir() else []

    def delete_folder(self, folder: str) -> None:
        shutil.rmtree(self.path(folder))

    @contextlib.contextmanager
    def alone(self, name: str, waits: Callable[[str], None]) -> Iterator[None]:
        path = self.path(name)
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    waits(file.read() or "another process")
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_at(path, file):  # `clean` took it away while we waited
                    continue
                file.truncate(0)
                file.write(holder())
                file.flush()
                yield
                return

    def is_alone(self) -> bool:
        return True  # the lock goes with the process

    def delete_drafts(self, *folders: str) -> None:
        found = [self.path(folder).glob(".*") for folder in folders] or [self.root.rglob(".*")]
        for path in itertools.chain(*found):
            if DRAFT.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _open(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError for what is none: opening a pipe would wait for its writer."""
    return open(path, "rb", opener=_opener)


def _opener(path: str, flags: int) -> int:
    number = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IsADirectoryError(errno.EISDIR, "is no file", path)
    return number


def _inside(name: str, url: str) -> str:
    """Return a name as it is. Names stand in manifests and indexes too, which may be strangers'."""
    if name.startswith("/") or "\0" in name or "::" in name or "://" in name or ".." in name.split("/"):
        raise RecipeError(f"{url} names a file outside of the dataset: {name[:200]!r}")
    return name


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ObjectStore:
    """A bucket behind fsspec. Data is uploaded whole from a local file, for an interrupted `open` publishes what it has."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.fs: Any
        self.fs, self.root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        self._lease: Lease | None = None
        self._blobs = BlobCache(self.read, self._read_range)

    def probe(self) -> None:
        """Raise RecipeError unless a second creation of one name is refused."""
        name = f"work/probe-{uuid.uuid4().hex}"
        try:
            refused = self.put_new(name, b"first") and not self.put_new(name, b"second")
        except (TypeError, NotImplementedError, ValueError) as error:
            raise RecipeError(
                f"{self.url}: this store cannot create a file exclusively ({error}); use a local folder"
            ) from None
        except OSError as error:
            raise RecipeError(f"{self.url}: cannot be written: {error}") from None
        self.delete(name)
        if not refused:
            raise RecipeError(f"{self.url}: this store lets a second writer replace a file; use one with If-None-Match")

    def _full(self, name: str) -> str:
        return f"{self.root}/{_inside(name, self.url)}"

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(self._full(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return (self._blobs.read if name.endswith(".blob") else self._read_range)(name, offset, size)

    def _read_range(self, name: str, offset: int, size: int) -> bytes:
        return self.fs.cat_file(self._full(name), start=offset, end=offset + size)

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(prefix="vlmdata-") as file:
            yield file
            file.flush()
            self.fs.put_file(file.name, self._full(name))

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
        """Nothing to do: an object appears whole under its name, or not at all."""


def store_file(store: Store, name: str) -> Any:
    """Open a file of the store for reading by ranges."""
    if isinstance(store, LocalStore):
        return _open(store.path(name))
    return fsspec.open(f"{store.url}/{_inside(name, store.url)}", "rb").open()
