"""Handles Ctrl-C and SIGTERM: a command prints one line and exits with 128 + the signal's number, even if signals repeat."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from vlmdata.process.thread import attempt

if TYPE_CHECKING:
    import subprocess

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []  # signals so far; global, because a process has one set of handlers
_unsaid: list[str] = []  # the line that is still to be printed
_delayed: list[list[int]] = []  # inside `delayed`, the signals that came since the block began


def until_stopped(work: Callable[[], int], message: str, *, is_process: bool) -> int:
    """Return the status of `work`. If a signal stops it, print `message` on stderr and return 128 + the signal's number.

    The first signal raises KeyboardInterrupt, so that open resources are closed in order. A second signal ends the process at
    once. If `is_process` is true, the process runs only this command, so this function also installs the signal handlers and
    ends the process. It then returns only if the work raised an error.
    """
    _unsaid[:] = [message]
    if is_process:
        _open_closed_streams()
        listen()

    def finish() -> int | None:
        """Return the status of the work, or None if it was interrupted."""
        status = work()
        if _received:  # the interrupted code caught the KeyboardInterrupt and reported an error
            return None
        if is_process:  # a later signal ends the process at once, without a message
            _received.append(signal.SIGINT)
            _unsaid.clear()
        return status

    status = attempt(finish, _unless_interrupted)
    if status is None:
        _say()
        status = 128 + (_received or [signal.SIGINT])[0]
    elif is_process:
        threading._shutdown()  # type: ignore[attr-defined]  # ends the threads of executors, as the interpreter does
    if is_process:
        _end(status)
    return status


def _open_closed_streams() -> None:
    """Open the null device for an output stream that the parent process closed (`>&-`), for which Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, open until the process ends


def _end(status: int) -> NoReturn:
    """End the process with this status, after the functions of `atexit`, but without the rest of the interpreter's shutdown.

    During the shutdown another signal would print a traceback. And a thread of Arrow that then enters Python, to read a file
    object or to release its bytes, would abort the process: its status would be 134, although the work was done.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk or a closed pipe
            status = status or 1
    os._exit(status)


def _unless_interrupted(error: BaseException) -> None:
    """Raise the error, unless a signal was received or the error is a KeyboardInterrupt.

    After a signal, any error may be an effect of the signal. An import or C code may turn a KeyboardInterrupt into another
    error.
    """
    if not _received and not isinstance(error, KeyboardInterrupt):
        raise error


def listen() -> None:
    """Install the signal handlers. A signal that the parent process set to be ignored stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _say() -> None:
    """Print the message of `until_stopped` once. Do not use `print`, because an interrupted `print` may still hold its lock."""
    while _unsaid:
        line = f"{_unsaid.pop()}\n"
        os.write(2, (f"\n{line}" if os.isatty(2) else line).encode())  # a new line after the ^C of a terminal


def _stop(number: int, frame: Any) -> None:
    if _delayed:
        _delayed[-1].append(number)
        return
    if _received:
        _say()
        os._exit(128 + _received[0])
    _received.append(number)
    raise KeyboardInterrupt


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of `listen` after a block in which a library sets its own handlers.

    If the library's handler raises SystemExit, as Ray's does, handle that as SIGTERM.
    """
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
def delayed() -> Iterator[None]:
    """Let the handlers of `listen` act only after the `with` block, which must be short.

    A signal mask would not do, because it covers one thread and other threads may exist.
    """
    _delayed.append([])
    try:
        yield
    finally:
        for number in _delayed.pop()[:1]:
            _stop(number, None)


@contextmanager
def held_back() -> Iterator[None]:
    """Block Ctrl-C for the processes that start inside the `with` block, because a terminal sends Ctrl-C to all processes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore Ctrl-C, because the parent process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def handed_to(process: subprocess.Popen) -> Iterator[None]:
    """Let a child process handle SIGINT and SIGTERM. It gets Ctrl-C from the terminal, and SIGTERM from this process."""
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate()), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
