"""Copy a shipped recipe to a file for editing."""

from pathlib import Path

import click

from vlmdata.verbs import CompletionItem, Verb, argument, files, json_option, print_json, words

EXAMPLES = "vlmdata new captions"


def shipped(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a shipped recipe."""
    from vlmdata.recipe import PIPELINES

    return words(sorted(path.stem for path in PIPELINES.glob("build/*.yaml")), incomplete)


@click.command(cls=Verb)
@argument("recipe", "name of a shipped recipe", shell_complete=shipped)
@argument(
    "path", "file to write (default: the recipe's file name, in the current folder)", required=False, shell_complete=files
)
@json_option
def command(recipe: str, path: str | None, as_json: bool) -> None:
    from vlmdata.recipe import locate
    from vlmdata.step import RecipeError

    source = locate(recipe)
    target = Path(path or source.name)
    if target.exists():
        raise RecipeError(f"{target} already exists. Name another file: vlmdata new {recipe} other.yaml")
    target.write_text(source.read_text())
    if as_json:
        print_json({"recipe": recipe, "path": str(target)})
        return
    print(f"{target} written. Edit it, then run\n  vlmdata check {target}\n  vlmdata run {target} --out OUT")
