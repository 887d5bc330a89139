"""The command line. Each verb is a file in vlmdata/commands. Results go to stdout, and messages go to stderr."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from vlmdata import commands
from vlmdata.notes import Note, is_quiet
from vlmdata.process import interrupt
from vlmdata.process.stopped import STOPPED
from vlmdata.verbs import Verbs, call, is_json, print_error

MOST_LINES = 30  # mistakes that are printed


def _pointer(word: str) -> str:
    """Return which command explains a step, source, generator or recipe whose name is used as a verb, or an empty string."""
    from vlmdata import catalog
    from vlmdata.shipped import build_recipes

    kind = next((kind[:-1] for kind in ("steps", "sources", "generators") if word in catalog.names(kind)), None)
    if kind:
        return f"It is a {kind}, which `vlmdata steps {word}` explains"
    if word in (path.stem for path in build_recipes()):
        return f"It is a recipe: `vlmdata run {word}` builds it, and `vlmdata new {word}` copies it"
    return ""


VERBS = Verbs(
    "vlmdata",
    "Build, filter, deduplicate, pack and stream data for VLMs.",
    commands,
    first=("demo", "new", "check", "run", "show", "why"),
    pointer=_pointer,
)


def main(argv: list[str] | None = None) -> int:
    """Run a verb. Return the exit status: 0, 1 (failure), 2 (usage error), 130 (after Ctrl-C) or 143 (after SIGTERM)."""
    return interrupt.until_stopped(lambda: _main(argv), STOPPED, is_process=argv is None)


def _main(argv: list[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return call(VERBS, words)
    except Exception as error:  # process boundary: prints one line, or the traceback of a bug, without secrets
        return _failed(error, as_json=is_json(words))


def _failed(error: Exception, *, as_json: bool) -> int:
    """Print the error and return the exit status. Call this only in an `except` block, because it may print the traceback.

    With `as_json`, also print the error as a JSON document on standard output.
    """
    from vlmdata.errors import InputError, Mistakes, RecipeError
    from vlmdata.redact import redacted

    message = _message(error)
    for line in _first(error.lines) if isinstance(error, Mistakes) else (message,):
        print(f"vlmdata: {line}" if line else redacted(traceback.format_exc().rstrip("\n")), file=sys.stderr)
    if as_json:
        print_error(message or f"{type(error).__name__}: {error}")
    return 2 if isinstance(error, (RecipeError, InputError)) else 1


def _first(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and a line with the number of the others: a file that is no recipe gives hundreds."""
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"and {more:,} more; correct these first"] if more > 1 else list(lines)


def _message(error: Exception) -> str | None:
    """Return one line for the user, or None if the error is a bug of vlmdata."""
    from vlmdata.errors import Error
    from vlmdata.process.shortage import ADVICE, in_short, is_short_of_memory
    from vlmdata.redact import redacted
    from vlmdata.untrusted import one_line, store_advice

    if isinstance(error, Error):
        return str(error)
    if (advice := store_advice(error)) is not None:
        return f"the object store cannot be used: {redacted(one_line(error))}{advice}"
    if isinstance(error, PermissionError) and error.filename:
        fix = "Change its permissions, and run the same command again"
        return f"{redacted(str(error.filename))} cannot be used: {error.strerror}. {fix}"
    if isinstance(error, OSError):
        return f"{redacted(str(error))}. Fix this and run the same command again; it resumes."
    return f"{in_short(error)}. {ADVICE}" if is_short_of_memory(error) else None


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Print a UserWarning as one line, and any other warning with its file and line number.

    With --quiet, print only UserWarnings, which say that data is damaged or left out.
    """
    from vlmdata.redact import redacted

    is_ours = category in (UserWarning, Note)
    if is_quiet() and category is not UserWarning:
        return
    text = f"note: {message}\n" if is_ours else warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(redacted(text))


if __name__ == "__main__":
    sys.exit(main())
