"""A store in a folder. A record is first written to a temporary file, the draft.

When the draft is complete, a hard link gives it the name of the record.
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
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from vlmdata.engine.store.lease import holder
from vlmdata.engine.store.store_protocol import LineWriter, inside
from vlmdata.safe_path import Refused, real_path_inside
from vlmdata.step import RecipeError

KNOWN = 100_000  # maximum number of checked paths that are remembered
DRAFT = re.compile(r"\..+\.[0-9a-f]{32}")  # the name of an incomplete file


class LocalStore:
    """A store in a folder of a file system that every worker sees under the same path."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        self.url = str(self.root)
        self._known: set[Path] = set()  # paths that were checked and are inside of the dataset

    def path(self, name: str) -> Path:
        """Return the absolute path of a file. Raises RecipeError if the name or a link points outside of the dataset."""
        path = self.root / inside(name, self.url)
        if path not in self._known:
            try:
                real_path_inside(str(path), self.url)
            except Refused:
                raise RecipeError(f"{self.url}: the path {name[:200]!r} leads outside of the dataset through a link") from None
            if len(self._known) < KNOWN:
                self._known.add(path)
        return path

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with self.open(name) as file:
            left = os.fstat(file.fileno()).st_size - offset  # `size` may be wrong, and pread allocates it first
            return os.pread(file.fileno(), min(size, left), offset) if left > 0 else b""

    def open(self, name: str) -> IO[bytes]:
        return _open(self.path(name))

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _removed_on_error(path), open(path, "x+b", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def line_writer(self, folder: str) -> LineWriter:
        path = self.path(f"{folder}/{uuid.uuid4().hex}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        return _OneFile(path)

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
        with _removed_on_error(draft), open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return draft

    def publish(self, name: str, target: str) -> None:
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        link = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        os.link(self.path(name), link)
        os.replace(link, path)
        link.unlink(missing_ok=True)  # os.replace does nothing if both are links to one file

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
                if not _is_at(path, file):  # `clean` deleted it while we waited
                    continue
                file.truncate(0)
                file.write(holder())
                file.flush()
                yield
                return

    def is_alone(self) -> bool:
        return True  # the kernel releases the lock only when the process ends

    def delete_drafts(self, *folders: str) -> None:
        found = [self.path(folder).glob(".*") for folder in folders] or [self.root.rglob(".*")]
        for path in itertools.chain(*found):
            if DRAFT.fullmatch(path.name):
                path.unlink(missing_ok=True)


class _OneFile:
    """A LineWriter that appends lines to one file."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115

    def add(self, line: bytes) -> None:
        with self._lock:
            data = memoryview(line + b"\n")
            while data:  # a write may be short, for example near the limit of a quota
                data = data[self._file.write(data) :]

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def existing_parent(folder: Path) -> Path:
    """Return the folder itself if it exists, or the nearest folder above that exists. A link exists, whatever it leads to."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    """Remove the file if the block raises."""
    with contextlib.ExitStack() as undo:
        undo.callback(path.unlink, missing_ok=True)
        yield
        undo.pop_all()


def _open(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError if it is not a regular file, because opening a pipe would wait for its writer."""
    return open(path, "rb", opener=_opener)


def _opener(path: str, flags: int) -> int:
    number = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IsADirectoryError(errno.EISDIR, "not a regular file", path)
    return number


def _is_at(path: Path, file: IO[str]) -> bool:
    """Return whether an open file is still the file at this path."""
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
