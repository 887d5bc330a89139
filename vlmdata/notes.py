"""What a command says besides its results and errors. `quiet` silences it, as the option --quiet does.

Warnings that data is damaged or left out are not notes. They are given with `warnings.warn` and are never silenced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_quiet = ContextVar("is_quiet", default=False)


class Note(UserWarning):
    """A warning that data is neither damaged nor left out, such as advice about speed."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence notes and progress in the `with` block. Other threads are not affected."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def is_quiet() -> bool:
    """Return whether notes and progress are silenced."""
    return _is_quiet.get()


def note(text: str) -> None:
    """Print a line for the user on standard error, without secrets."""
    from vlmdata.redact import redacted

    if not is_quiet():
        print(f"vlmdata: {redacted(text)}", file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print on standard output what a command has done, if this is not the purpose of the command."""
    if not is_quiet():
        print(text)
