"""The command line: a verb is a file in vlmdata/commands. Results to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import traceback
import warnings
from typing import Any

from vlmdata import commands, interrupt
from vlmdata.commands import STOPPED
from vlmdata.stopped import STOPPED

MOST_USED = ("demo", "new", "check", "run", "show", "why")  # listed first


def main(argv: list[str] | None = None) -> int:
    """Run a verb. Returns 0, 1 where it failed, 2 where it was misused, 130 where Ctrl-C stopped it, 143 by SIGTERM."""
    return interrupt.until_stopped(lambda: _main(argv), STOPPED, is_process=argv is None)


def _main(argv: list[str] | None) -> int:
    try:
        return _run(argv)
    except Exception as error:
        from vlmdata.engine.shortage import ADVICE, in_short, is_short_of_memory
        from vlmdata.redact import redacted

        if not is_short_of_memory(error):
            print(redacted(traceback.format_exc()), end="", file=sys.stderr)
            return 1
        print(f"vlmdata: {in_short(error)}. {ADVICE}", file=sys.stderr)
        return 1


def _run(argv: list[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "command"):
        parser.print_help()
        return 2
    from vlmdata.engine.driver import WorkFailed
    from vlmdata.redact import redacted
    from vlmdata.step import RecipeError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return arguments.command(arguments) or 0
    except RecipeError as error:
        print(f"vlmdata: {error}", file=sys.stderr)
        return 2
    except WorkFailed as error:
        print(f"vlmdata: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"vlmdata: {redacted(str(error))}. Fix this and run the same command again; it resumes.", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = argparse.ArgumentParser(prog="vlmdata", description="Build, filter, deduplicate, pack and stream data for VLMs.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    for name in sorted(names, key=lambda n: (MOST_USED.index(n) if n in MOST_USED else len(MOST_USED), n)):
        module = importlib.import_module(f"vlmdata.commands.{name}")
        assert module.__doc__, f"vlmdata/commands/{name}.py says in its first line what the verb does"
        summary = module.__doc__.splitlines()[0].rstrip(".")
        verb = verbs.add_parser(
            name,
            help=summary[0].lower() + summary[1:],
            description=module.__doc__,
            epilog="examples:\n" + "".join(f"  {line.strip()}\n" for line in module.EXAMPLE.strip().splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(verb)
        verb.set_defaults(command=module.run)
    return parser


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Print what a user should know as a line; what is for developers, with its place in the code."""
    from vlmdata.redact import redacted

    says = f"note: {message}\n" if category is UserWarning else warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(redacted(says))


if __name__ == "__main__":
    sys.exit(main())
