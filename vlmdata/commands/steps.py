"""List the steps and sources, with their parameters."""

import dataclasses
import inspect
from typing import Any

import click

from vlmdata.verbs import CompletionItem, Verb, argument, words

EXAMPLES = """
vlmdata steps
vlmdata steps clip_score
"""


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a step or a source."""
    from vlmdata import catalog

    return words([*catalog.names("steps"), *catalog.names("sources")], incomplete)


@click.command(cls=Verb)
@argument("name", "show only this step or source, with its parameters", required=False, shell_complete=names)
def command(name: str | None) -> None:
    from vlmdata import catalog

    if name:
        kind = "sources" if name in catalog.names("sources") else "steps"
        print(describe(name, catalog.find(kind, name)))
        return
    for kind in ("sources", "steps"):
        print(f"{kind}:")
        for name in catalog.names(kind):
            print(f"  {name:<22} {_first_line(inspect.getmodule(catalog.find(kind, name)))}")


def describe(name: str, cls: type) -> str:
    """Return the docstring of a step or source and a line for each parameter."""
    lines = [f"{name}: {inspect.getdoc(cls)}", "", "parameters:"]
    for field in dataclasses.fields(cls):
        if field.name == "label":
            continue
        if field.default is not dataclasses.MISSING:
            default = f" = {field.default!r}"
        elif field.default_factory is not dataclasses.MISSING:
            default = f" = {field.default_factory()!r}"
        else:
            default = "  (required)"
        kind = field.type.__name__ if type(field.type) is type else str(field.type).replace("typing.", "")
        lines.append(f"  {field.name}: {kind}{default}")
    return "\n".join(lines)


def _first_line(module: Any) -> str:
    return (inspect.getdoc(module) or "").splitlines()[0]
