"""Converts the exceptions of other libraries, such as parsers of untrusted bytes, to errors of vlmdata."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Failed(Exception):
    """Wraps an exception of any type for callers that only need to know that something failed. `args[0]` is the exception."""


@contextmanager
def errors_as(becomes: Callable[[Exception], Exception], *, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise `becomes(error)` in place of any error in the block.

    An error is re-raised unchanged if its type is in `passes` or if `becomes` returns it. The new error has a cause only if
    `becomes` sets one. KeyboardInterrupt and SystemExit are not converted. MemoryError is converted, because a file that
    states a wrong size can also raise it.
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
    """Return the message of an error as one line, or the name of the error's type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
