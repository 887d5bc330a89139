"""What parsers of strangers' bytes and other people's libraries raise, which may be anything, becomes an error of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Failed(Exception):
    """An error of any kind, its one argument, where the caller only has to know that there was one."""


@contextmanager
def errors_as(becomes: Callable[[Exception], Exception], *, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise `becomes(error)` in place of any error of the block; the error itself where that returns it, or is of `passes`.

    The new error has no cause unless `becomes` sets one. KeyboardInterrupt and SystemExit are no errors. MemoryError is one:
    a file that lies about its size raises it too, so each caller says what it means.
    """
    try:
        yield
    except passes:
        raise
    except Exception as error:  # bytes that we do not trust: their parsers raise whatever the damage leads to
        raised = becomes(error)
        if raised is error:
            raise
        raise raised from raised.__cause__


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
