"""`Thread`, which raises MemoryError if it cannot start, and `attempt`, the outermost call of a thread or a worker process."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

ROOM = 64 << 20  # bytes; a process that cannot map this amount is out of memory
BEGIN_S = 60.0  # a thread that has not started after this time will never start, even in a busy process
LOOK_S = 1.0  # time between checks of free memory, while waiting for a thread to start


def has_room() -> bool:
    """Return whether this process can map `ROOM` more bytes of memory."""
    try:
        mmap.mmap(-1, ROOM).close()
    except (OSError, MemoryError):
        return False
    return True


def attempt(work: Callable[[], T], on_error: Callable[[BaseException], T]) -> T:
    """Return the result of `work`, or of `on_error` for any exception, including KeyboardInterrupt and MemoryError.

    Use it for the outermost call of a thread or a worker process, whose errors reach the waiting caller only if they are
    passed on. `on_error` runs inside the `except` block and may re-raise.
    """
    try:
        return work()
    except BaseException as error:  # the boundary of a thread or a process: no caller would see the error
        return on_error(error)


class Thread(threading.Thread):
    """A daemon thread whose `start` raises MemoryError if memory is short.

    `threading.Thread.start` would wait forever in this case.
    """

    def __init__(self, target: Callable[..., Any], *args: Any, name: str | None = None):
        super().__init__(target=target, args=args, name=name, daemon=True)
        self._started = _StartEvent()  # `start` waits for this event


class _StartEvent(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        for _ in range(round(BEGIN_S / LOOK_S)):
            if super().wait(LOOK_S):
                return True
            if not has_room():
                break
        raise MemoryError("a thread could not start, because memory is short or the machine is too busy")
