"""Find every mistake that a run would make, in a second; or verify a finished dataset."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vlmdata.commands.run import recipe_arguments
from vlmdata.recipe import Recipe, read_settings
from vlmdata.redact import redacted

EXAMPLE = """
vlmdata check captions --set source.path=urls.parquet
vlmdata check OUT
vlmdata check OUT --bytes
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument("--bytes", action="store_true", help="of a dataset: read every file and compare its SHA-256")


def run(arguments: argparse.Namespace) -> int:
    from vlmdata.build import check
    from vlmdata.engine.audit import audit
    from vlmdata.recipe import modules, parse, read

    given, target = arguments.recipe, redacted(arguments.recipe)
    if "://" in given or Path(given).is_dir():
        faults = audit(given, read_bytes=arguments.bytes)
        whole = f"{target}: whole, {'every byte' if arguments.bytes else 'sums and sizes'} checked"
        print(redacted("\n".join(faults)) if faults else whole)
        return 1 if faults else 0
    tree, path = read(given, read_settings(arguments.set))
    for module in modules(tree):
        print(f"{target}: imports {module}, which runs its code")
    recipe = parse(tree, path)
    check(recipe)
    warn_of_a_crowd(recipe)
    warn_of_names(recipe.source.carries())
    if warning := recipe.source.warning():
        print(f"vlmdata: {warning}", file=sys.stderr)
    print(f"{target}: nothing wrong; {len(recipe.steps)} steps, tars of {recipe.shards.samples:,} samples")
    return 0


def warn_of_a_crowd(recipe: Recipe) -> None:
    """Say on stderr if one host has so much of the head of a list that its pace is the run's; a run looks at a fair sample."""
    from vlmdata.row import conform, flatten
    from vlmdata.sources.url_list import UrlList
    from vlmdata.steps.download import Download
    from vlmdata.web.crowd import crowd

    web = next((step for step in recipe.steps if isinstance(step, Download)), None)
    if web is None or not isinstance(recipe.source, UrlList):
        return
    tables = (table for piece in recipe.source.pieces() for table in recipe.source.read(piece))
    head = next(tables, None)
    if head is not None and (warning := crowd(flatten(conform(head), "images").field("url").to_pylist(), None, web)):
        print(f"vlmdata: {warning}", file=sys.stderr)


def warn_of_names(columns: Sequence[str]) -> None:
    """Say on stderr which of a source's columns get another name in a sample's JSON, since theirs is a field of ours."""
    from vlmdata.fields import other_names

    if others := other_names(columns):
        listed = ", ".join(f"{name} as {other}" for name, other in others.items())
        print(f"vlmdata: columns with the name of a field of ours get another in the sample's JSON: {listed}", file=sys.stderr)
