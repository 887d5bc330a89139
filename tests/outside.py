"""What a test does outside the folders of its run, as an audit hook sees it: files written, other machines connected to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> where among its arguments is the path that changes, and (-1: nowhere) the folder it is relative to.
CHANGES = {
    "os.rename": (1, 3), "os.link": (1, 3), "os.symlink": (1, 2), "os.remove": (0, 1), "os.mkdir": (0, 2), "os.rmdir": (0, 1),
    "os.truncate": (0, -1), "os.chmod": (0, 2),
}  # fmt: skip
DEVICES = ("/dev/", "/proc/")
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


class Outside:
    """Writes outside `folders` and connections to other addresses, of this process alone. Bytecode does not count."""

    def __init__(self, folders: Sequence[Path], addresses: tuple[str, ...] = LOOPBACK) -> None:
        self._folders = tuple(f"{folder.resolve()}/" for folder in folders)
        self._addresses = addresses
        self._seen: list[str] | None = None
        sys.addaudithook(self._look)

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Give the list to which all that happens within the block is added."""
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._seen is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES:
                self._note(event, path)
        elif event in CHANGES:
            at, folder = CHANGES[event]
            if folder < 0 or arguments[folder] == -1:
                self._note(event, arguments[at])
        elif event == "socket.connect":
            address = arguments[1]
            if isinstance(address, tuple) and not str(address[0]).startswith(self._addresses):
                self._seen.append(f"{event} {address}")

    def _note(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        whole = os.path.abspath(os.fsdecode(path))
        inside = f"{whole}/".startswith((*self._folders, *DEVICES)) or "__pycache__" in whole
        if not inside and not (event == "os.mkdir" and os.path.isdir(whole)) and self._seen is not None:
            self._seen.append(f"{event} {whole}")
