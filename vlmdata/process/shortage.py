"""Recognizes out-of-memory errors of any library, and reports them in one line."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

from vlmdata.errors import Error, OwnCodeFailed
from vlmdata.process.thread import has_room
from vlmdata.untrusted import one_line, store_advice

OWN_CODE = "in the user's code"  # first line of a description of OwnCodeFailed
ADVICE = "Free some memory or use fewer --workers, and run the same command again; it resumes."
WORDS = (
    "Cannot allocate memory",  # message of the C library
    "Insufficient memory",  # message of OpenCV
    "can't start new thread",  # message of Python
    "Failed to launch worker thread",  # message of Arrow
    "failed to map segment",  # message of the dynamic linker
    "std::bad_alloc",
)


def is_short_of_memory(error: BaseException) -> bool:
    """Return whether lack of memory caused an error: the error or one of its causes says so, or no memory is free now.

    Call this in the `except` block, while the error's frames still hold their memory. Free memory is checked because lack of
    memory can interrupt an import, and the half-imported library fails later with an unrelated message. For an AssertionError,
    which is a bug, free memory is not checked.
    """
    if any(_names_memory(one) for one in _causes(error)):
        return True
    return not isinstance(error, AssertionError) and not has_room()


def describe_error(error: BaseException) -> str:
    """Return an error with its traceback as text. If the error is not a bug, the last line states its kind and its message.

    The kinds are MemoryError if memory ran out, RecipeError for an error that vlmdata raises on purpose, and OSError or a
    built-in class derived from it for an error of the machine or of an object store.
    """
    text = traceback.format_exc()
    if is_short_of_memory(error):
        return f"{text}\n{in_short(error)}"
    if isinstance(error, OwnCodeFailed):
        return f"{OWN_CODE}\n{error}"
    if isinstance(error, Error):
        return f"{text}\nRecipeError: {one_line(error)}"
    if isinstance(error, OSError) or store_advice(error) is not None:
        kind = type(error).__name__ if type(error).__module__ == "builtins" else "OSError"
        return f"{text}\n{kind}: {one_line(error)}{store_advice(error) or ''}"
    return text


def in_short(error: BaseException) -> str:
    """Return a one-line message about lack of memory, with the text of the error."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    return "MemoryError: there is too little memory" + f" ({text[:300]})" * (text != "MemoryError")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]


def _names_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error) for words in WORDS)
