"""An audit hook that records what a test does outside the folders of its run: files changed, other machines connected to.

The hook sees the Python code of this process. It does not see child processes or what C libraries do by themselves.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> (index of a path that changes, index of the folder it is relative to, or None if it has none).
CHANGES: dict[str, list[tuple[int, int | None]]] = {
    "os.rename": [(0, 2), (1, 3)], "os.link": [(1, 3)], "os.symlink": [(1, 2)], "os.remove": [(0, 1)], "os.mkdir": [(0, 2)],
    "os.rmdir": [(0, 1)], "os.truncate": [(0, None)], "os.chmod": [(0, 2)],
}  # fmt: skip
DEVICES = ("/dev/", "/proc/")
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


class Outside:
    """A record of this process's changes outside `folders` and TCP connections to other addresses. Bytecode does not count."""

    def __init__(
        self, folders: Sequence[Path], addresses: tuple[str, ...] = LOOPBACK, *, ours: Callable[[str, int], bool] | None = None
    ) -> None:
        self._folders = tuple(f"{os.path.realpath(folder)}/" for folder in folders)
        self._addresses = addresses
        self._is_ours = ours or is_of_this_machine
        self._seen: list[str] | None = None
        sys.addaudithook(self._look)

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Yield a list to which every such action inside the block is added."""
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._seen is None:
            return
        if event == "open":
            path, mode, flags = arguments
            # os.open has no mode, and may have a folder that the event does not report
            if isinstance(flags, int) and flags & WRITES and not (mode is None and not _is_absolute(path)):
                self._note(event, path, follow=True)
        elif event in CHANGES:
            for at, folder in CHANGES[event]:
                if folder is None or arguments[folder] == -1:
                    self._note(event, arguments[at], follow=False)
        elif event == "socket.connect" and arguments[0].type == socket.SOCK_STREAM:
            address = arguments[1]
            is_outside = isinstance(address, tuple) and not str(address[0]).startswith(self._addresses)
            if is_outside and not self._is_ours(str(address[0]), arguments[0].family):  # a Ray cluster listens there
                self._seen.append(f"{event} {address}")

    def _note(self, event: str, path: Any, *, follow: bool) -> None:
        """Record a change of a path outside the folders. `follow` means a change of a link's target instead of the link."""
        if isinstance(path, int):
            return
        name = os.fsdecode(path).rstrip("/")
        folder, last = os.path.split(os.path.abspath(name))
        whole = os.path.realpath(name) if follow else os.path.join(os.path.realpath(folder), last)
        inside = f"{whole}/".startswith((*self._folders, *DEVICES)) or "__pycache__" in whole or ".pyc" in whole
        if not inside and not (event == "os.mkdir" and os.path.isdir(whole)) and self._seen is not None:
            self._seen.append(f"{event} {whole}")


def _is_absolute(path: Any) -> bool:
    return not isinstance(path, int) and os.path.isabs(os.fsdecode(path))


def is_of_this_machine(host: str, family: int) -> bool:
    """Return whether an address belongs to this machine, so that a connection to it does not leave the machine."""
    with contextlib.suppress(OSError), socket.socket(family) as probe:
        probe.bind((host, 0))
        return True
    return False
