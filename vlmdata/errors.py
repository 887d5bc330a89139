"""The exceptions of vlmdata. Each also derives from a fitting built-in class, so code that catches that class works."""

from vlmdata.redact import redacted


class Error(Exception):
    """Base class of the errors that vlmdata raises on purpose. Secrets are removed from the message.

    Failures of the machine, such as a full disk or a missing permission, stay OSError.
    """

    def __init__(self, message: object):
        super().__init__(redacted(str(message)))


class RecipeError(Error, ValueError):
    """A user's mistake, found before any work starts. The message says where it is and how to fix it."""


class InputError(Error, ValueError):
    """An unusable argument, tar, index or saved state. The message says which, and how to fix it."""


class WorkFailed(Error, RuntimeError):
    """A call failed: a bug in vlmdata, with its traceback, or worker processes that keep dying."""
