"""Converts exceptions of any type, raised by parsers of untrusted bytes and by other libraries, to one of our errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Failed(Exception):
    """Wraps any error, as its argument, for callers that only need to know that there was one."""


@contextmanager
def errors_as(becomes: Callable[[Exception], Exception], *, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise `becomes(error)` in place of any error in the block. An error in `passes`, or that it returns, is re-raised.

    The new error has no cause unless `becomes` sets one. KeyboardInterrupt and SystemExit are not converted. MemoryError
    is: a file with a false size raises it too, so each caller decides what it means.
    """
    try:
        yield
    except passes:
        raise
    except Exception as error:  # untrusted bytes: their parsers may raise anything
        raised = becomes(error)
        if raised is error:
            raise
        raise raised from raised.__cause__


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, or its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
