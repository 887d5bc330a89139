"""Ctrl-C and SIGTERM: a command ends in one line, with the status that shells know, however often they come."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlmdata.process.thread import attempt

if TYPE_CHECKING:
    import subprocess

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_came: list[int] = []  # signals so far; a process has one set of handlers
_to_say: list[str] = []  # the line that was not said yet


def until_stopped(work: Callable[[], int], says: str, *, is_process: bool) -> int:
    """Return the status of `work`, or 128 and the signal's number where one ended it, with the line `says` on stderr.

    The first signal raises KeyboardInterrupt, so that what was begun is closed in order; a second ends the process at once.
    `is_process`: the process is this command's alone, so it ends here where it was stopped.
    """
    _to_say[:] = [says]
    if is_process:
        listen()

    def finish() -> int | None:
        """Return the status of the work; None where it was interrupted."""
        status = work()
        if _came:  # what was interrupted made an error of it and reported that
            return None
        if is_process:  # what comes now cuts the interpreter's own end short, and has nothing to say
            _came.append(signal.SIGINT)
            _to_say.clear()
        return status

    status = attempt(finish, _unless_interrupted)
    if status is not None:
        return status
    _say()
    status = 128 + (_came or [signal.SIGINT])[0]
    if is_process:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(status)  # not through the interpreter's own end, where another signal leaves a traceback
    return status


def _unless_interrupted(error: BaseException) -> None:
    """Raise the error unless it comes from a signal, which in an import or a call into C is whatever that makes of it."""
    if not _came and not isinstance(error, KeyboardInterrupt):
        raise error


def listen() -> None:
    """Take the signals, but those that whoever started the process had it ignore."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _say() -> None:
    """Say the line, once; not by print, which an interrupted print may hold."""
    while _to_say:
        line = f"{_to_say.pop()}\n"
        os.write(2, (f"\n{line}" if os.isatty(2) else line).encode())  # after the ^C that a terminal shows


def _stop(number: int, frame: Any) -> None:
    if _came:
        _say()
        os._exit(128 + _came[0])
    _came.append(number)
    raise KeyboardInterrupt


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Have the handlers of `listen` again after a library sets its own in the block, Ray one that raises SystemExit."""
    if signal.getsignal(signal.SIGTERM) is not _stop:
        yield
        return
    try:
        yield
    except SystemExit:
        listen()
        signal.raise_signal(signal.SIGTERM)
    finally:
        listen()


@contextmanager
def held_back() -> Iterator[None]:
    """Keep Ctrl-C from a process that is started in the block, for as long as it lives: a terminal sends it to all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def handed_to(process: subprocess.Popen) -> Iterator[None]:
    """Leave both signals to a process that speaks for this one: it gets Ctrl-C from the terminal, and SIGTERM from us."""
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate()), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
