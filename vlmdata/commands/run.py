"""Build a dataset. The same command resumes an interrupted build."""

import shlex
from typing import Any

import click

from vlmdata.commands.new import shipped
from vlmdata.verbs import PATH, CompletionItem, Verb, argument, files, folders, json_option, print_json

EXAMPLES = """
vlmdata run captions --set source.path=urls.parquet --out OUT
vlmdata run captions --set source.path=urls.parquet --set clip_score=off --out OUT
vlmdata run my-recipe.yaml --out s3://bucket/dataset --address auto
"""


def recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a shipped recipe or the path of a file."""
    return [*files(ctx, param, incomplete), *shipped(ctx, param, incomplete)]  # bash drops words listed before a path


RECIPE = "a YAML file, or the name of a shipped recipe, such as captions"


def recipe_parameters(text: str = RECIPE) -> Any:
    """Return a decorator that adds the argument that names a recipe, explained by `text`, and the option that changes its
    parameters.
    """

    def decorate(command: Any) -> Any:
        command = click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="A.B=C",
            help="change a parameter, such as image_size.min_side=100, or leave out a step: clip_score=off",
        )(command)
        return argument("recipe", text, type=PATH, shell_complete=recipes)(command)

    return decorate


def engine_parameters(command: Any) -> Any:
    """Add the options of the engine: the number of workers, and the choice between local processes and Ray."""
    for decorate in (
        click.option("--workers", type=int, metavar="N", help="number of workers (default: one for each core)"),
        click.option("--local", is_flag=True, help="use plain processes instead of Ray; they start in a second"),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="address of a running Ray cluster, or auto to find one (default: start Ray on this machine)",
        ),
    ):
        command = decorate(command)
    return command


@click.command(cls=Verb)
@recipe_parameters()
@click.option(
    "--out",
    required=True,
    type=PATH,
    metavar="OUT",
    help="folder or object-store address of the dataset",
    shell_complete=folders,
)
@engine_parameters
@click.option("--limit", type=int, metavar="N", help="build only N rows (a random sample if the source is a list)")
@json_option
def command(recipe: str, settings: tuple[str, ...], out: str, as_json: bool, **options: Any) -> None:
    from vlmdata.build import run
    from vlmdata.engine.store.open_store import open_store
    from vlmdata.notes import note, tell
    from vlmdata.recipe import read_settings
    from vlmdata.report.loss_lines import loss_lines
    from vlmdata.rerun import earlier_manifest, rerun_lines
    from vlmdata.show import summary, totals

    before = earlier_manifest(out)
    manifest = run(recipe, out, overrides=read_settings(settings), **options)
    store = open_store(out, probe=False)
    if as_json:
        print_json(totals(manifest, out))
        for line in loss_lines(store, manifest, out):  # why so few rows were kept
            note(line)
        return
    again, losses = rerun_lines(store, before, manifest, out), loss_lines(store, manifest, out)
    tell("\n".join([summary(manifest, out), *again, *losses]))
    if not losses:  # they name commands themselves
        note(f"next: vlmdata show {shlex.quote(out)}{'' if '://' in out else ' --open'}")
