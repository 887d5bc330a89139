"""Retry the fetches that failed temporarily: time-outs, busy hosts, servers that were down."""

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
@click.option(
    "--only",
    metavar="REASONS",
    help="retry only fetches that failed for these reasons, separated by commas (default: all temporary reasons)",
)
@click.option(
    "--recipe",
    metavar="RECIPE",
    help="recipe that built the dataset; needed if addresses in the recipe hold secrets, which the manifest does not keep",
    shell_complete=recipes,
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A.B=C",
    help="with --recipe: a parameter that was changed by --set when the dataset was built",
)
@engine_parameters
def command(out: str, only: str | None, recipe: str | None, settings: tuple[str, ...], **options: Any) -> None:
    from vlmdata.recipe import read_settings
    from vlmdata.redact import redacted
    from vlmdata.refetch import reasons_to_retry, retry
    from vlmdata.show import summary

    before, reasons = reasons_to_retry(out, only.split(",") if only else ())
    if not reasons:
        print(f"{redacted(out)}: no fetch failed temporarily, so there is nothing to retry")
        return
    manifest = retry(out, only=reasons, recipe=recipe, overrides=read_settings(settings), **options)
    print(summary(manifest, out))
    print(f"{manifest['kept'] - before['kept']:,} more rows kept than before")
