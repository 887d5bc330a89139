"""Copy a shipped recipe to a file for editing, or list the shipped recipes."""

import shlex
import textwrap
from pathlib import Path

import click

from vlmdata.shipped import About, about, build_recipes
from vlmdata.verbs import MAX_WIDTH, PATH, CompletionItem, Verb, argument, files, json_option, print_json, words

EXAMPLES = """
vlmdata new
vlmdata new captions
vlmdata new chats my-chats.yaml
"""
NAME_WIDTH = 23  # columns of a name in the list
NARROWEST = 20  # columns of the narrowest terminal for which the list is wrapped


def shipped(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a shipped recipe."""
    return words([path.stem for path in build_recipes()], incomplete)


class New(Verb):
    """The verb `new`, whose help also lists the shipped recipes."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        with formatter.section("Recipes"):
            formatter.write_dl([(path.stem, about(path).summary) for path in build_recipes()])


@click.command(cls=New)
@argument("recipe", "name of a shipped recipe (default: list all)", required=False, shell_complete=shipped)
@argument(
    "path",
    "file to write (default: the recipe's file name, in the current folder)",
    required=False,
    type=PATH,
    shell_complete=files,
)
@json_option
def command(recipe: str | None, path: str | None, as_json: bool) -> None:
    from vlmdata.notes import tell

    if recipe:
        target, lines = copied(recipe, path)
        if as_json:
            print_json({"recipe": recipe, "path": str(target)})
        else:
            tell(lines)
    elif as_json:
        said = {file.stem: about(file) for file in build_recipes()}
        print_json(
            {"recipes": [{"name": name, "summary": one.summary, "settings": one.settings} for name, one in said.items()]}
        )
    else:
        print(listing())


def listing() -> str:
    """Return the shipped recipes as lines: the name, what the recipe builds, and the parameters that a user must set.

    The lines fit in the terminal.
    """
    from vlmdata.terminal import columns

    most = max(NARROWEST, min(columns(), MAX_WIDTH))
    start = NAME_WIDTH if most >= 2 * NAME_WIDTH else 2  # in a narrow terminal the text is below the name
    lines = []
    for file in build_recipes():
        said = about(file)
        text = [*_wrapped(said.summary, most, start), *_wrapped(f"set {', '.join(said.settings)}", most, start)]
        name = file.stem.ljust(start)
        lines += [f"{name}{text[0][start:]}", *text[1:]] if len(name) == start else [name, *text]
    end = "`vlmdata new NAME` copies one of them to NAME.yaml. Its comments explain every choice."
    return "\n".join([*lines, "", *_wrapped(end, most, 0)])


def _wrapped(text: str, most: int, start: int) -> list[str]:
    indent = " " * start
    return textwrap.wrap(
        text, most, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def copied(recipe: str, path: str | None) -> tuple[Path, str]:
    """Copy a shipped recipe to a file, and return the file and lines that name the next commands.

    Raises RecipeError if there is no such recipe, or if the file exists or cannot be written.
    """
    from vlmdata.recipe import locate
    from vlmdata.step import RecipeError

    source = locate(recipe)
    target = Path(path or source.name)
    if target.exists():
        raise RecipeError(f"{target} already exists. Name another file: vlmdata new {recipe} other.yaml")
    try:
        target.write_text(source.read_text())
    except OSError as error:
        raise RecipeError(f"cannot write {target}: {error.strerror}. Name another file: vlmdata new {recipe} FILE") from None
    if source not in build_recipes():  # the user's file
        return target, f"{target} written. Edit it, then run\n  vlmdata check {target}\n  vlmdata run {target} --out OUT"
    return target, f"{target} written. {next_commands(about(source), source.stem, target)}"


def next_commands(said: About, name: str, target: Path) -> str:
    """Return the commands that check and run a copy of the shipped recipe `name`, with the parameters that must be set."""
    run = said.command.replace(f"vlmdata run {name}", f"vlmdata run {shlex.quote(str(target))}", 1)
    check = run.replace("vlmdata run", "vlmdata check", 1).replace(" --out OUT", "")
    return f"Set {', '.join(said.settings)} in it or as below, change what you like, and run\n  {check}\n  {run}"
