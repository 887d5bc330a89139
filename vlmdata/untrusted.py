"""Converts the exceptions of other libraries, such as parsers of untrusted bytes, to errors of vlmdata."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

STORE_LIBRARIES = ("botocore", "aiobotocore", "s3fs", "gcsfs", "adlfs", "azure", "google", "aiohttp")
STORE_ADVICE = {  # part of the name of an exception: how to fix it
    "Credential": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the credentials of your store",
    "Token": "Renew the credentials of your store",
    "Endpoint": "Check AWS_ENDPOINT_URL and the network",
    "Connect": "Check the address of the store and the network",
    "Timeout": "Check the address of the store and the network",
}


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


def shown(value: object, most: int = 100) -> str:
    """Return the representation of a value as one line of at most `most` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, or the name of the error's type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def store_advice(error: BaseException) -> str | None:
    """Return ". " and how to fix an error of an object store, or "" if that is not known. None: it is another error."""
    if type(error).__module__.partition(".")[0] not in STORE_LIBRARIES:
        return None
    return next((f". {fix}" for part, fix in STORE_ADVICE.items() if part in type(error).__name__), "")
