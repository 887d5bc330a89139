"""Say what steps and sources there are, with their parameters."""

import argparse
import dataclasses
import inspect
from typing import Any

EXAMPLE = """
vlmdata steps
vlmdata steps clip_score
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one step or source, with its parameters")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata import catalog  # brings pydantic, which no other verb waits for

    if arguments.name:
        kind = "sources" if arguments.name in catalog.names("sources") else "steps"
        print(describe(arguments.name, catalog.find(kind, arguments.name)))
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
