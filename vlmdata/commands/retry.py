"""Fetch again the rows that failed temporarily: time-outs, busy hosts, servers that were down."""

import json
from typing import Any

import click

from vlmdata.commands.run import engine_parameters, recipes
from vlmdata.verbs import Verb, argument, folders

EXAMPLES = """
vlmdata retry OUT
vlmdata retry OUT --only timeout,http_503
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", shell_complete=folders)
@click.option("--only", metavar="REASONS", help="reasons, separated by commas (default: all temporary ones)")
@click.option(
    "--recipe",
    metavar="RECIPE",
    help="recipe of the dataset; needed where its addresses hold secrets, which the manifest does not keep",
    shell_complete=recipes,
)
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="change a value of that recipe")
@engine_parameters
def command(out: str, only: str | None, recipe: str | None, settings: tuple[str, ...], **options: Any) -> None:
    from vlmdata.build import run
    from vlmdata.dataset import read_manifest, settle
    from vlmdata.engine.open import open_store
    from vlmdata.recipe import load, parse, read_settings
    from vlmdata.redact import MARK, redacted
    from vlmdata.show import summary
    from vlmdata.step import RecipeError
    from vlmdata.web.outcomes import is_passing

    settle(open_store(out, probe=False))
    before = read_manifest(out)
    found = sorted({line["reason"] for line in before["dropped"] if line["step"] == "download"})
    wanted = only.split(",") if only else [reason for reason in found if is_passing(reason)]
    unknown = set(wanted) - set(found)
    if unknown:
        raise RecipeError(f"no row of {out} failed with {', '.join(sorted(unknown))}; the reasons are: {', '.join(found)}")
    if not wanted:
        print(f"{redacted(out)}: no row failed temporarily")
        return
    chosen = load(recipe, read_settings(settings)) if recipe else parse(before["recipe"])
    if not recipe and MARK in json.dumps(before["recipe"]):
        raise RecipeError(f"{out} does not keep the secrets of its recipe's addresses: add --recipe FILE")
    manifest = run(chosen, out, retry=wanted, **options)
    print(summary(manifest, out))
    print(f"{manifest['kept'] - before['kept']:,} more rows kept than before")
