"""Train the stages of a recipe one after another."""

import click

from vlmdata.verbs import CompletionItem, Verb, argument, files, words
from vlmdata_train.train_verb import report

EXAMPLES = """
vlmdata train stages llava --set stages.align.data=CAPTIONS --set stages.instruct.data=CHATS
torchrun --nproc-per-node 8 -m vlmdata_train stages qwen2_vl --set data=CHATS --set speed.parallel=fsdp
"""


def _recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from vlmdata.shipped import PIPELINES

    shipped = sorted(path.stem for path in PIPELINES.glob("stages/*.yaml"))
    return [*files(ctx, param, incomplete), *words(shipped, incomplete)]


@click.command(cls=Verb)
@argument("recipe", "a file, or a shipped recipe of stages, such as llava (all: docs/training.md)", shell_complete=_recipes)
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="change a value of the recipe")
def command(recipe: str, settings: tuple[str, ...]) -> None:
    from vlmdata.recipe import read_settings
    from vlmdata_train.stages import device_of, load_stages, recipes

    trees = load_stages(recipe, overrides=read_settings(settings))
    from vlmdata_train.distributed import joined  # after all checks, because torch takes seconds to import
    from vlmdata_train.loop.loop import run_training

    result = None
    with joined(device_of(trees)):
        for stage in recipes(trees):
            result = run_training(stage)
    if result is not None:
        report(result.checkpoint, stage)
