"""Copy a recipe that ships, to edit."""

import argparse
from pathlib import Path

from vlmdata.step import RecipeError

EXAMPLE = "vlmdata new captions"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="name of a recipe that ships")
    parser.add_argument("path", nargs="?", help="where to put it (default: here, under its own name)")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.recipe import locate

    source = locate(arguments.recipe)
    target = Path(arguments.path or source.name)
    if target.exists():
        raise RecipeError(f"{target} exists; name another file: vlmdata new {arguments.recipe} other.yaml")
    target.write_text(source.read_text())
    print(f"{target}: edit it, then\n  vlmdata check {target}\n  vlmdata run {target} --out OUT")
