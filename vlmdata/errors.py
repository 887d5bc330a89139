"""The exceptions of vlmdata. Each also derives from a built-in exception, so code that catches the built-in exception works."""

from __future__ import annotations

from collections.abc import Sequence

from vlmdata.redact import redacted


class Error(Exception):
    """Base class of the errors that vlmdata raises on purpose. Secrets are removed from the message.

    Failures of the machine, such as a full disk or a missing permission, are raised as OSError.
    """

    def __init__(self, message: object):
        super().__init__(redacted(str(message)))


class RecipeError(Error, ValueError):
    """A user's mistake that is found before any work starts. The message says where the mistake is and how to fix it."""


class Mistakes(RecipeError):
    """All mistakes that the checks before a run found. `lines` holds one line for each, which says where it is and the fix."""

    def __init__(self, lines: Sequence[str]):
        super().__init__("\n".join(lines))
        self.lines = tuple(str(self).split("\n"))

    def __reduce__(self) -> tuple[type[Mistakes], tuple[list[str]]]:
        return Mistakes, (list(self.lines),)


class InputError(Error, ValueError):
    """An argument, tar, index or saved state that cannot be used. The message names the object and the fix."""


class Unreachable(Error, ConnectionError):
    """The server of a remote store does not answer. The message names the store and the setting to check."""


class WorkFailed(Error, RuntimeError):
    """A failure during a run, such as workers that keep dying. If vlmdata has a bug, the message holds the traceback."""


class GeneratorStopped(Error, RuntimeError):
    """A model or endpoint that cannot go on answering, such as a spent budget. The message says how to go on."""


class OwnCodeFailed(Error, RuntimeError):
    """A user's step or source raised an error. The message names it and the row, and shows the lines of its code."""
