"""Retry the fetches that failed temporarily: time-outs, busy hosts, servers that were down."""

from typing import Any

import click

from vlmdata.commands.run import engine_parameters, recipes
from vlmdata.verbs import Verb, argument, folders, json_option, print_json

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
@json_option
def command(out: str, only: str | None, recipe: str | None, settings: tuple[str, ...], as_json: bool, **options: Any) -> None:
    from vlmdata.recipe import read_settings
    from vlmdata.redact import redacted
    from vlmdata.refetch import reasons_to_retry, retry
    from vlmdata.show import summary, totals

    before, reasons = reasons_to_retry(out, only.split(",") if only else ())
    if not reasons and as_json:
        print_json({**totals(before, out), "retried": [], "more_kept": 0})
        return
    if not reasons:
        print(f"{redacted(out)}: no fetch failed temporarily, so there is nothing to retry")
        return
    manifest = retry(out, only=reasons, recipe=recipe, overrides=read_settings(settings), **options)
    more = manifest["kept"] - before["kept"]
    if as_json:
        print_json({**totals(manifest, out), "retried": reasons, "more_kept": more})
        return
    print(summary(manifest, out))
    print(f"{more:,} more rows kept than before")
