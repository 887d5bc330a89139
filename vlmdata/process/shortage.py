"""Want of memory, by whatever library and in whatever words it is told."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

from vlmdata.process.thread import has_room

ADVICE = "Free some or use fewer --workers, and run the same command again; it resumes."
WORDS = (
    "Cannot allocate memory",  # the C library's
    "Insufficient memory",  # OpenCV's
    "can't start new thread",  # Python's
    "Failed to launch worker thread",  # Arrow's
    "failed to map segment",  # the dynamic linker's
    "std::bad_alloc",
)


def is_short_of_memory(error: BaseException) -> bool:
    """Say whether an error comes from want of memory: it or what led to it says so, or there is none now.

    Call it where the error is handled, while what its frames hold is still held. A library that could be imported by half
    only fails later and in words of its own; an assertion of ours is never explained away.
    """
    if any(_tells(one) for one in _causes(error)):
        return True
    return not isinstance(error, AssertionError) and not has_room()


def told(error: BaseException) -> str:
    """Return an error with its traceback, as text; of want of memory the last line says so."""
    text = traceback.format_exc()
    return f"{text}\n{in_short(error)}" if is_short_of_memory(error) else text


def in_short(error: BaseException) -> str:
    """Return want of memory in one line."""
    said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    return "MemoryError: there is too little memory" + f" ({said[:300]})" * (said != "MemoryError")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]


def _tells(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error) for words in WORDS)
