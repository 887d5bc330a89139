"""Where results lie: a local folder or an object store, with exclusive creation and no partial result ever visible.

Names are relative to the dataset's folder, with forward slashes. Data files get a name that no other attempt has, so
nobody reads one before a record names it; records are made by exclusive creation, so the first attempt wins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from vlmdata.step import RecipeError


class Store(Protocol):
    """What the engine asks of a place that holds a dataset."""

    url: str

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises FileNotFoundError."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return part of a file."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading, by ranges. Raises FileNotFoundError, and OSError for what is no file."""
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


def inside(name: str, url: str) -> str:
    """Return a name as it is. Names stand in manifests and indexes too, which may be strangers'."""
    if name.startswith("/") or "\0" in name or "::" in name or "://" in name or ".." in name.split("/"):
        raise RecipeError(f"{url} names a file outside of the dataset: {name[:200]!r}")
    return name
