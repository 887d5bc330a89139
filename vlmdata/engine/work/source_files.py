"""Finds a file of an archive that is removed, cut or replaced while a run reads it, before anything of it is committed."""

from __future__ import annotations

import os
from typing import Any

from vlmdata.engine.partitions.plan import other_source, source_identity
from vlmdata.engine.store.store_protocol import Store
from vlmdata.errors import RecipeError
from vlmdata.step import Source


class SourceFiles:
    """The local files of an archive, as this worker found them first. Thread-safe."""

    def __init__(self, store: Store, source: Source, identity: str):
        """Raises RecipeError if the source is not the one that the plan has."""
        if source_identity(source) != identity:
            raise RecipeError(other_source(store, source))
        self._found: dict[str, tuple[int, ...]] = {}

    def check(self, path: str) -> None:
        """Raise RecipeError if the file is gone, or has changed since the first call for it. Folders are not compared."""
        facts: tuple[int, ...] | None = None
        if os.path.exists(path):
            stat = os.stat(path)
            facts = () if os.path.isdir(path) else (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if facts is None or self._found.setdefault(path, facts) != facts:
            what = "was removed" if facts is None else "was changed"
            raise RecipeError(f"{path} {what} during the run. Put the file back, and run the same command again; it resumes")


def local_path(piece: dict[str, Any]) -> str | None:
    """Return the path of the local file that a piece reads, or None if it reads another thing, such as a remote file."""
    path = piece.get("path")
    return path if isinstance(path, str) and os.path.isabs(path) else None
