"""Finds a file of an archive that is removed, cut or replaced while a run reads it, before anything of it is committed."""

from __future__ import annotations

import functools
import os
from typing import Any

from vlmdata.engine.partitions.plan import began, source_identity
from vlmdata.engine.store.store_protocol import Store
from vlmdata.errors import RecipeError
from vlmdata.step import Source


class SourceFiles:
    """The local files of an archive, as this worker found them before it read them. Thread-safe."""

    def __init__(self, store: Store, source: Source, identity: str):
        self._began = began(store)
        self._source = source
        self._identity = identity
        self._found: dict[str, tuple[float, ...]] = {}

    def note(self, path: str) -> None:
        """Remember a file as it is before it is read. It may be gone: a partition with committed rows may not need it."""
        if (facts := _facts(path)) is not None:
            self._found.setdefault(path, facts)

    def check(self, path: str) -> None:
        """Raise RecipeError if a file that was read is gone, or has changed since it was noted, or since the plan was made.

        Folders are not compared.
        """
        facts = _facts(path)
        if facts is None:
            raise _changed(path, "was removed")
        is_other = facts and facts[1] > self._began and not self._is_as_planned
        if is_other or self._found.setdefault(path, facts) != facts:
            raise _changed(path, "was changed")

    @functools.cached_property
    def _is_as_planned(self) -> bool:
        """Whether the source has the files of the plan. If not, files were added, or a relative path leads elsewhere here."""
        try:
            return source_identity(self._source) == self._identity
        except RecipeError:
            return False


def _facts(path: str) -> tuple[float, ...] | None:
    """Return the size and the time of the last change of a file, nothing for a folder, and None if there is neither."""
    if not os.path.exists(path):
        return None
    stat = os.stat(path)
    # not the inode: some network file systems give a file a new one whenever their cache forgets the file
    return () if os.path.isdir(path) else (stat.st_size, stat.st_mtime)


def _changed(path: str, what: str) -> RecipeError:
    return RecipeError(f"{path} {what} during the run. Put the file back, and run the same command again; it resumes")


def local_path(source: Source, piece: dict[str, Any]) -> str | None:
    """Return the path of the local file that a piece reads, or None if it reads another thing, such as a remote file.

    It is None for a source that a user wrote: the `path` in its pieces may be no file, or a database that others write to.
    """
    path = piece.get("path") if type(source).__module__.startswith("vlmdata.") else None
    return path if isinstance(path, str) and os.path.isabs(path) else None
