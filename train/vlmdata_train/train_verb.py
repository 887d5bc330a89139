"""Code that the verbs align and instruct share: the parameters for the recipe, and the training run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from vlmdata.verbs import CompletionItem, argument, files, words


def recipe_parameters(stage: str) -> Callable[[Any], Any]:
    """Return a decorator that adds the option `--set` and the argument `recipe` to a verb. The default recipe is `stage`."""

    def decorate(command: Any) -> Any:
        command = click.option("--set", "settings", multiple=True, metavar="A.B=C", help="change a value of the recipe")(
            command
        )
        description = f"a file, or a shipped recipe: {stage} (the default), tiny, qwen2_vl … (all: docs/models.md)"
        return argument("recipe", description, default=stage, shell_complete=_recipes)(command)

    return decorate


def train(recipe: str, stage: str, settings: Sequence[str]) -> None:
    """Train with a recipe and print the path of the last checkpoint."""
    from vlmdata.recipe import read_settings
    from vlmdata_train.checks import check_training
    from vlmdata_train.recipe_file import load

    loaded = load(recipe, stage=stage, overrides=read_settings(settings))
    check_training(loaded)
    from vlmdata_train.loop.loop import run_training  # after all checks, because it imports torch, which takes seconds

    result = run_training(loaded)
    if os.environ.get("RANK", "0") == "0":
        print(result.checkpoint)


def _recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from vlmdata.shipped import PIPELINES

    shipped = sorted(path.stem for path in PIPELINES.glob("train/*.yaml"))
    return [*files(ctx, param, incomplete), *words(shipped, incomplete)]
