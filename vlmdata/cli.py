"""The command line. Each verb is a file in vlmdata/commands. Results go to stdout, and messages go to stderr."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Any

from vlmdata import commands
from vlmdata.process import interrupt
from vlmdata.process.stopped import STOPPED
from vlmdata.verbs import Verbs, call

VERBS = Verbs(
    "vlmdata",
    "Build, filter, deduplicate, pack and stream data for VLMs.",
    commands,
    first=("demo", "new", "check", "run", "show", "why"),
)


def main(argv: list[str] | None = None) -> int:
    """Run a verb. Return the exit status: 0, 1 (failure), 2 (usage error), 130 (after Ctrl-C) or 143 (after SIGTERM)."""
    return interrupt.until_stopped(lambda: _main(argv), STOPPED, is_process=argv is None)


def _main(argv: list[str] | None) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return call(VERBS, sys.argv[1:] if argv is None else argv)
    except Exception as error:  # process boundary: prints one line, or the traceback of a bug, without secrets
        return _failed(error)


def _failed(error: Exception) -> int:
    """Print the error and return the exit status. Call this only in an `except` block, because it may print the traceback."""
    from vlmdata.errors import InputError, RecipeError, WorkFailed
    from vlmdata.process.shortage import ADVICE, in_short, is_short_of_memory
    from vlmdata.redact import redacted

    if isinstance(error, (RecipeError, InputError, WorkFailed)):
        print(f"vlmdata: {error}", file=sys.stderr)
        return 1 if isinstance(error, WorkFailed) else 2
    if isinstance(error, OSError):
        print(f"vlmdata: {redacted(str(error))}. Fix this and run the same command again; it resumes.", file=sys.stderr)
    elif is_short_of_memory(error):
        print(f"vlmdata: {in_short(error)}. {ADVICE}", file=sys.stderr)
    else:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
    return 1


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Print a UserWarning as one line, and any other warning with its file and line number."""
    from vlmdata.redact import redacted

    text = f"note: {message}\n" if category is UserWarning else warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(redacted(text))


if __name__ == "__main__":
    sys.exit(main())
