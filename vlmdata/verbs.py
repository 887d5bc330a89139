"""The command line of vlmdata and vlmdata_train, built on click: verbs from a folder, help, errors and shell completion."""

from __future__ import annotations

import difflib
import importlib
import json
import math
import os
import pkgutil
import select
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

import click
from click.shell_completion import CompletionItem, shell_complete

from vlmdata.home_folder import at_home
from vlmdata.notes import quiet

COMPLETE = "_VLMDATA_COMPLETE"  # click's variable, set by the shell's completion function
MAX_WIDTH = 100  # width of the help in characters


class _Command(click.Command):
    """Base class of a program and its verbs."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option:
            option.help = "show this message and exit"
        return option

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            names = [name for param in self.get_params(ctx) if isinstance(param, click.Option) for name in param.opts]
            raise click.UsageError(_no_such("option", error.option_name, names), ctx) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # the usage line needs a ctx, but click sets none if an option lacks its value
            if not isinstance(error, click.BadParameter) or isinstance(error, click.MissingParameter):
                raise click.UsageError(f"{error.format_message().rstrip('.')}.{self.example()}", error.ctx) from None
            raise

    def example(self) -> str:
        """Return the end of a message about a missing word: an example of the command. Empty if there is none."""
        return ""


class Verb(_Command):
    """A verb of the command line. Its name, help and examples are the name, docstring and EXAMPLES of the verb's file."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        assert self.callback is not None
        module = sys.modules[self.callback.__module__]
        assert module.__doc__, f"{module.__name__} needs a docstring whose first line says what the verb does"
        summary = module.__doc__.splitlines()[0].rstrip(".")
        self.name = module.__name__.rpartition(".")[2]
        self.help = module.__doc__
        self.short_help = summary[0].lower() + summary[1:]
        self.params.append(_quiet_option())
        self.examples = [line.strip() for line in module.EXAMPLES.strip().splitlines()]

    def example(self) -> str:
        return f" Example: {self.examples[0].partition('  #')[0].rstrip()}"

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        for title, kind in (("Arguments", click.Argument), ("Options", click.Option)):
            records = (param.get_help_record(ctx) for param in self.get_params(ctx) if isinstance(param, kind))
            _write_rows(formatter, title, [record for record in records if record])
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in self.examples))  # not wrapped, so that users can copy them


class Verbs(_Command, click.Group):
    """A program whose verbs are the files of a package. It imports only the file of the verb in use."""

    def __init__(
        self,
        program: str,
        summary: str,
        package: ModuleType,
        *,
        first: Sequence[str],
        pointer: Callable[[str], str] = lambda word: "",
    ) -> None:
        """`first` names the verbs that the help lists first.

        `pointer` returns a sentence about a word that is no verb, such as the name of a step, or an empty string.
        """
        super().__init__(
            program,
            help=summary,
            epilog=f"`{program} VERB --help` explains a verb and shows examples.",
            subcommand_metavar="VERB ...",
            no_args_is_help=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self.program, self._package, self._first, self._pointer = program, package, first, pointer
        click.version_option(package_name="vlmdata", message="%(package)s %(version)s", help="show the version and exit")(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [module.name for module in pkgutil.iter_modules(self._package.__path__)]
        return sorted(names, key=lambda n: (self._first.index(n) if n in self._first else len(self._first), n))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{self._package.__name__}.{cmd_name}").command
        assert isinstance(command, Verb)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit(2)
        if args[:1] == ["help"]:  # as git and pip have it
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not ctx.resilient_parsing:
            pointer = self._pointer(args[0])
            words = f"No such verb '{args[0]}'. {pointer}" if pointer else _no_such("verb", args[0], names, lists=True)
            raise click.UsageError(words, ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = (param.get_help_record(ctx) for param in self.get_params(ctx))
        _write_rows(formatter, "Options", [record for record in records if record])
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        _write_rows(formatter, "Verbs", [(name, command.get_short_help_str()) for name, command in commands if command])


class _Argument(click.Argument):
    """An argument with a help text. In click itself, arguments have a help text only since version 8.5."""

    def __init__(self, *args: Any, help: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.help = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the name and the help text of the argument, as click shows them in a verb's help."""
        return self.human_readable_name, self.help or ""


def argument(name: str, help: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return the decorator that adds an argument with its help to a verb."""
    return click.argument(name, cls=_Argument, help=help, **attributes)


class _UserPath(click.ParamType):
    """The type of a path or address on the command line. A shell leaves the `~` of `--out=~/data` to the program."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return at_home(value)


PATH = _UserPath()


def _quiet_option() -> click.Option:
    """Return the option that every verb has. It silences notes and progress while the verb runs."""

    def silence(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            ctx.with_resource(quiet())

    text = "print no progress and no notes, only results, errors, and warnings of damaged or missing data"
    return click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=silence, help=text)


def json_option(command: Any) -> Any:
    """Add the option `--json` to a verb, as the parameter `as_json`. The verb passes its result to `print_json`."""
    text = "print one JSON document instead of text; docs/cli.md lists its fields"
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document, without secrets. Numbers that are not finite become null, and dates become ISO text."""
    from vlmdata.redact import redacted_tree

    print(json.dumps(_finite(redacted_tree(document)), indent=1, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    """Return plain JSON values with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_error(message: str) -> None:
    """Print the document that stands for the result of a verb that failed: {"error": "..."}."""
    try:
        print_json({"error": message})
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe; standard error has the message too
        _discard_output()


def is_json(words: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON. Words after `--` are arguments, never options."""
    return "--json" in words[: words.index("--") if "--" in words else None]


def call(verbs: Verbs, words: Sequence[str]) -> int:
    """Run the verb that a command line names. Returns its exit status, or 2 after a usage error.

    With `--json`, standard output also holds the error, as {"error": "..."}.

    Returns 1 without a message if the reader of the output has closed the pipe, as in `vlmdata steps | head -1`.
    """
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(verbs, {}, verbs.program, COMPLETE, instruction)
    try:
        status = _call(verbs, words)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_output_closed():
            raise  # another pipe, such as one to a worker
        _discard_output()
        return 1
    return status


def _call(verbs: Verbs, words: Sequence[str]) -> int:
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH) - 2
    try:
        with verbs.make_context(verbs.program, list(words), terminal_width=width) as context:
            return verbs.invoke(context) or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        from vlmdata.redact import redacted

        usage = f"{error.ctx.get_usage()}\n" if error.ctx else ""
        message = " ".join(error.format_message().split())  # the message about a choice has several lines
        print(f"{usage}{verbs.program}: {redacted(message)}", file=sys.stderr)
        if is_json(words):
            print_error(message)
        return 2


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at exit


def _is_output_closed() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # poll reports errors even with an empty event mask
    return bool(poll.poll(0))


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the path of a file."""
    return [CompletionItem(incomplete, type="file")]


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the path of a folder."""
    return [CompletionItem(incomplete, type="dir")]


def words(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return completions: the names that begin with `incomplete`."""
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _no_such(kind: str, word: str, names: Sequence[str], *, lists: bool = False) -> str:
    """Return a message with the nearest name. If none is near and `lists` is true, the message has all names."""
    bare = {name.strip("-"): name for name in names}  # the dashes would make all options similar
    close = difflib.get_close_matches(word.strip("-"), bare, 1)
    if lists and not close:
        return f"No such {kind} '{word}'. The {kind}s are {', '.join(names)}"
    return f"No such {kind} '{word}'." + "".join(f" Did you mean '{bare[name]}'?" for name in close)


def _write_rows(formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows, col_max=min(30, formatter.width // 2))
