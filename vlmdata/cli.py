"""The command line: a verb is a file in vlmdata/commands. Results to stdout, talk to stderr."""

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
    """Run a verb. Returns 0, 1 where it failed, 2 where it was misused, 130 where Ctrl-C stopped it, 143 by SIGTERM."""
    return interrupt.until_stopped(lambda: _main(argv), STOPPED, is_process=argv is None)


def _main(argv: list[str] | None) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return call(VERBS, sys.argv[1:] if argv is None else argv)
    except Exception as error:  # the boundary of the process: a user gets a line, and a traceback without secrets of a bug
        return _failed(error)


def _failed(error: Exception) -> int:
    """Print what went wrong and return the status. Call it while the error is handled."""
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
    """Print what a user should know as a line; what is for developers, with its place in the code."""
    from vlmdata.redact import redacted

    says = f"note: {message}\n" if category is UserWarning else warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(redacted(says))


if __name__ == "__main__":
    sys.exit(main())
