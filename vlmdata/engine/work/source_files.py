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
    """The local files of an archive, as this worker found them first. Thread-safe."""

    def __init__(self, store: Store, source: Source, identity: str):
        self._began = began(store)
        self._source = source
        self._identity = identity
        self._found: dict[str, tuple[int, ...]] = {}

    def check(self, path: str) -> None:
        """Raise RecipeError if the file is gone, or has changed since the first call for it, or since the plan was made.

        Folders are not compared.
        """
        facts: tuple[int, ...] | None = None
        if os.path.exists(path):
            stat = os.stat(path)
            # not the inode: some network file systems give a file a new one whenever their cache forgets the file
            facts = () if os.path.isdir(path) else (stat.st_size, stat.st_mtime_ns)
            if facts and path not in self._found and stat.st_mtime > self._began and not self._is_as_planned:
                raise _changed(path, "was changed")
        if facts is None or self._found.setdefault(path, facts) != facts:
            raise _changed(path, "was removed" if facts is None else "was changed")

    @functools.cached_property
    def _is_as_planned(self) -> bool:
        """Whether the source has the files of the plan. If not, files were added, or a relative path leads elsewhere here."""
        try:
            return source_identity(self._source) == self._identity
        except RecipeError:
            return False


def _changed(path: str, what: str) -> RecipeError:
    return RecipeError(f"{path} {what} during the run. Put the file back, and run the same command again; it resumes")


def local_path(piece: dict[str, Any]) -> str | None:
    """Return the path of the local file that a piece reads, or None if it reads another thing, such as a remote file."""
    path = piece.get("path")
    return path if isinstance(path, str) and os.path.isabs(path) else None
