"""The interface of a store: a local folder or an object store in which files can be created exclusively.

Names are relative to the dataset's folder, with forward slashes. A data file gets a unique name, so nobody reads it before a
record names it. Records are created exclusively, so the first attempt wins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from vlmdata.step import RecipeError


class LineWriter(Protocol):
    """Stores lines in a folder, each at once. Thread-safe."""

    def add(self, line: bytes) -> None:
        """Store a line, which holds no line break. It survives the death of this process when the call returns."""
        ...

    def close(self) -> None:
        """Make all lines durable, also if the machine fails."""
        ...


class Store(Protocol):
    """The operations that the engine needs on a dataset's files."""

    url: str

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError if there is none."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of a file from `offset`, or fewer at the end of the file."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading at any offset.

        Raises FileNotFoundError if there is none, and OSError if it is not a regular file.
        """
        ...

    def new_file(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a new data file for writing. It is durable when the block ends, and removed if the block raises."""
        ...

    def line_writer(self, folder: str) -> LineWriter:
        """Return a writer that adds files to a folder. Each file holds lines, of which a killed writer may cut the last."""
        ...

    def put_new(self, name: str, data: bytes) -> bool:
        """Create a record and return True. If the name exists, change nothing and return False."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a small file atomically. An existing file of this name is replaced."""
        ...

    def publish(self, name: str, target: str) -> None:
        """Give a finished data file a second name atomically. An existing file of that name is replaced."""
        ...

    def list(self, folder: str) -> list[str]:
        """Return the sorted names of the files in a folder, each with the folder's name, or [] if there is no such folder."""
        ...

    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        ...

    def erase(self, name: str, spans: Sequence[tuple[int, int]]) -> None:
        """Overwrite the spans (offset, size) of a file with zeros, durably. Do nothing if the file does not exist."""
        ...

    def folders(self, folder: str) -> Sequence[str]:
        """Return the names of the folders in `folder`, sorted. Each name begins with `folder`, such as `a/b` for `a`."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and its content."""
        ...

    def alone(self, name: str, waits: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that holds the exclusive lock `name` inside a `with` block.

        If another process holds the lock, `waits` is called with the name of that process. Then this process waits.
        """
        ...

    def is_alone(self) -> bool:
        """Return whether this process still holds the lock that it took."""
        ...

    def delete_drafts(self, *folders: str) -> None:
        """Delete the incomplete files that killed writers left in these folders, or in the whole dataset if none is named."""
        ...


def inside(name: str, url: str) -> str:
    """Return a name unchanged. Raises RecipeError if it points outside of the dataset.

    Names are checked because manifests may come from strangers.
    """
    if name.startswith("/") or "\0" in name or "::" in name or "://" in name or ".." in name.split("/"):
        raise RecipeError(f"{url} names a file outside of the dataset: {name[:200]!r}")
    return name
