"""The exceptions of vlmdata. Each also derives from the built-in class that fits it, so code that catches that class works."""

from vlmdata.redact import redacted


class Error(Exception):
    """Every error that vlmdata raises on purpose; its message holds no secrets.

    What the machine refuses, such as a full disk or a missing permission, stays an OSError.
    """

    def __init__(self, message: object):
        super().__init__(redacted(str(message)))


class RecipeError(Error, ValueError):
    """A user's mistake, found before any work starts: says where, what, and how to fix it."""


class InputError(Error, ValueError):
    """An argument, tars, an index or a saved state that cannot be used: says which, and how to fix it."""


class WorkFailed(Error, RuntimeError):
    """A call could not be done: an error in our code with its traceback, or worker processes that keep dying."""
