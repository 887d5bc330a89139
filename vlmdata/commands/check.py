"""Find every mistake that a run would make, in a second; or verify a finished dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlmdata.commands.run import recipe_parameters
from vlmdata.verbs import Verb

if TYPE_CHECKING:
    from vlmdata.recipe import Recipe

EXAMPLES = """
vlmdata check captions --set source.path=urls.parquet
vlmdata check OUT
vlmdata check OUT --bytes
"""


@click.command(cls=Verb)
@recipe_parameters
@click.option("--bytes", "every_byte", is_flag=True, help="of a dataset: read every file and compare its SHA-256")
def command(recipe: str, settings: tuple[str, ...], every_byte: bool) -> int:
    from vlmdata.build import check
    from vlmdata.engine.audit import audit
    from vlmdata.recipe import modules, parse, read, read_settings
    from vlmdata.redact import redacted

    target = redacted(recipe)
    if "://" in recipe or Path(recipe).is_dir():
        faults = audit(recipe, read_bytes=every_byte)
        whole = f"{target}: whole, {'every byte' if every_byte else 'sums and sizes'} checked"
        print(redacted("\n".join(faults)) if faults else whole)
        return 1 if faults else 0
    tree, path = read(recipe, read_settings(settings))
    for module in modules(tree):
        print(f"{target}: imports {module}, which runs its code")
    parsed = parse(tree, path)
    check(parsed)
    warn_of_a_crowd(parsed)
    warn_of_names(parsed.source.carries())
    if warning := parsed.source.warning():
        print(f"vlmdata: {warning}", file=sys.stderr)
    print(f"{target}: nothing wrong; {len(parsed.steps)} steps, tars of {parsed.shards.samples:,} samples")
    return 0


def warn_of_a_crowd(recipe: Recipe) -> None:
    """Warn on stderr if the first rows of a list are so often of one host that its rate limit bounds the run."""
    from vlmdata.row import conform, flatten
    from vlmdata.sources.url_list import UrlList
    from vlmdata.steps.download import Download
    from vlmdata.web.crowd import crowd

    web = recipe.first(Download)
    if web is None or not isinstance(recipe.source, UrlList):
        return
    tables = (table for piece in recipe.source.pieces() for table in recipe.source.read(piece))
    head = next(tables, None)
    if head is not None and (warning := crowd(flatten(conform(head), "images").field("url").to_pylist(), None, web)):
        print(f"vlmdata: {warning}", file=sys.stderr)


def warn_of_names(columns: Sequence[str]) -> None:
    """Say on stderr which columns of a source are renamed in a sample's JSON, because vlmdata has a field of that name."""
    from vlmdata.fields import other_names

    if others := other_names(columns):
        listed = ", ".join(f"{name} as {other}" for name, other in others.items())
        print(
            f"vlmdata: columns named like one of vlmdata's fields are renamed in the sample's JSON: {listed}", file=sys.stderr
        )
