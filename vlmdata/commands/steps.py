"""List the steps, sources and generators, or explain one: its parameters, their units and defaults, and an example."""

import shutil
import sys

import click

from vlmdata.verbs import MAX_WIDTH, CompletionItem, Verb, argument, json_option, print_json, words

EXAMPLES = """
vlmdata steps
vlmdata steps clip_score
vlmdata steps clip_score --json
vlmdata steps --schema > recipe.schema.json
"""


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a step, a source or a generator."""
    from vlmdata import reference

    return words(reference.names(), incomplete)


@click.command(cls=Verb)
@argument("name", "explain only this step, source or generator", required=False, shell_complete=names)
@click.option("--schema", is_flag=True, help="print the JSON Schema of recipes, for editors (docs/steps.md)")
@json_option
def command(name: str | None, schema: bool, as_json: bool) -> None:
    from vlmdata import reference
    from vlmdata.schema import text

    columns = shutil.get_terminal_size().columns
    if schema:
        print(text(), end="")
    elif name:
        known = reference.facts(name, reference.find(name))
        print_json(known) if as_json else print(reference.in_text(known, min(columns, MAX_WIDTH)))
    else:
        every = reference.every()
        print_json(every) if as_json else print(reference.in_list(every, columns if sys.stdout.isatty() else None))
