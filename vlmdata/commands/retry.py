"""Retry what failed temporarily, and the fetches that changed settings may turn into a success.

Temporary failures of fetches are time-outs, busy hosts and servers that were down. Answers of models that failed so are asked
for again too.
"""

from typing import Any

import click

from vlmdata.commands.run import engine_parameters, recipes
from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata retry OUT
vlmdata retry OUT --only timeout,http_503
vlmdata retry OUT --set 'download.allowed_hosts=[images.intranet]'
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", type=PATH, shell_complete=folders)
@click.option(
    "--only",
    metavar="REASONS",
    help="retry only fetches and answers that failed for these reasons, separated by commas (default: all temporary reasons, "
    "and those of fetches that depend on a changed setting)",
)
@click.option(
    "--recipe",
    metavar="RECIPE",
    help="recipe that built the dataset (default: the one in its manifest); needed if addresses in the recipe hold secrets, "
    "which the manifest does not keep",
    type=PATH,
    shell_complete=recipes,
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A.B=C",
    help="change a parameter of a fetch, such as download.timeout_s=60; for those of other steps, use `vlmdata run --set`",
)
@engine_parameters
@json_option
def command(out: str, only: str | None, recipe: str | None, settings: tuple[str, ...], as_json: bool, **options: Any) -> None:
    from vlmdata.engine.store.open_store import open_store
    from vlmdata.notes import tell
    from vlmdata.recipe import read_settings
    from vlmdata.redact import redacted
    from vlmdata.refetch import carry_out, plan_retry
    from vlmdata.report.loss_lines import loss_lines
    from vlmdata.show import summary, totals
    from vlmdata.sizes import counted

    plan = plan_retry(out, only.split(",") if only else (), recipe=recipe, overrides=read_settings(settings))
    if not as_json:
        for line in plan.lines():
            tell(line)
    manifest = carry_out(plan, **options)
    more = manifest["kept"] - plan.manifest["kept"]
    if as_json:
        print_json({**totals(manifest, out), "retried": plan.again, "more_kept": more})
    elif plan.again:
        tell("\n".join([summary(manifest, out), *loss_lines(open_store(out, probe=False), manifest, out)]))
        tell(f"{counted(more, 'more row')} kept than before")
    else:
        changed = "; no failed fetch depends on the changed settings" if settings else ""
        tell(f"{redacted(out)}: there is nothing to retry{changed}")
