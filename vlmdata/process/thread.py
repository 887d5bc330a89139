"""Threads that either begin or say that they cannot, and the outermost call of a thread or of a worker process."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

ROOM = 64 << 20  # bytes: who cannot have so many more has run short of memory
BEGIN_S = 60.0  # a thread that has not begun after so long, whatever else the process does, will not
LOOK_S = 1.0  # how often who waits for it to begin looks whether there is memory


def has_room() -> bool:
    """Say whether there is memory for more than a trifle."""
    try:
        mmap.mmap(-1, ROOM).close()
    except (OSError, MemoryError):
        return False
    return True


def attempt(work: Callable[[], T], on_error: Callable[[BaseException], T]) -> T:
    """Return what `work` returns, or what `on_error` returns for whatever it raises, an interrupt or want of memory too.

    For the outermost call of a thread or of a worker process, from which an error reaches whoever waits only if it is handed
    over. `on_error` runs while the error is handled and may raise it again.
    """
    try:
        return work()
    except BaseException as error:  # the boundary of a thread or a process: nobody above would see the error
        return on_error(error)


class Thread(threading.Thread):
    """A daemon. Where it finds no memory for its first call `start` raises MemoryError; the library's waits for ever."""

    def __init__(self, target: Callable[..., Any], *args: Any, name: str | None = None):
        super().__init__(target=target, args=args, name=name, daemon=True)
        self._started = _Begun()  # what `start` waits for


class _Begun(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        for _ in range(round(BEGIN_S / LOOK_S)):
            if super().wait(LOOK_S):
                return True
            if not has_room():
                break
        raise MemoryError("a thread could not begin")
