"""Code that the verbs align and instruct share: the parameters for the recipe, and the training run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlmdata.notes import is_quiet
from vlmdata.verbs import CompletionItem, argument, files, words

if TYPE_CHECKING:
    from vlmdata_train.recipe import Recipe


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
    """Train with a recipe. Print the path of the last checkpoint, and on stderr the commands that use it."""
    from vlmdata.recipe import read_settings
    from vlmdata_train.checks import check_training
    from vlmdata_train.recipe_file import load

    loaded = load(recipe, stage=stage, overrides=read_settings(settings))
    check_training(loaded)
    from vlmdata_train.loop.loop import run_training  # after all checks, because it imports torch, which takes seconds

    result = run_training(loaded)
    report(result.checkpoint, loaded, recipe)


def report(checkpoint: Path | None, recipe: Recipe, name: str = "") -> None:
    """Print the path of a run's last checkpoint, and on stderr the commands that use it. Only the first rank prints.

    `name` is the recipe on the command line.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    if checkpoint is None:
        print("no checkpoint was saved; `checkpoints.every` sets after how many steps the run saves one", file=sys.stderr)
        return
    print(checkpoint, flush=True)
    if not is_quiet():
        print("\n".join(next_commands(checkpoint, recipe, name)), file=sys.stderr)


def next_commands(checkpoint: Path, recipe: Recipe, name: str = "") -> list[str]:
    """Return a line for each command that a user may run on a checkpoint: chat, evaluate, instruct after align, export.

    `name` is the recipe on the command line. Stage 2 uses the same recipe, so that the parts of the model are the same.
    """
    folder, here = Path(recipe.out), shlex.quote(str(checkpoint))
    held = recipe.held_out.path or (recipe.data if isinstance(recipe.data, str) else next(iter(recipe.data)))
    lines = [
        ("ask it about a picture", f"vlmdata train chat {here} photo.jpg"),
        ("measure it", f"vlmdata train evaluate {here} {shlex.quote(str(held))}"),
    ]
    if recipe.stage == "align" and name:
        same = "" if name == "align" else f" {shlex.quote(name)}"
        out = shlex.quote(f"out={folder.with_name(f'{folder.name}-instruct')}")
        start = shlex.quote(f"start={checkpoint}")
        lines += [("train it on conversations", f"vlmdata train instruct{same} --set data=CHATS --set {start} --set {out}")]
    lines += [("export it", f"vlmdata train export {here} {shlex.quote(str(folder / 'exported'))}")]
    width = max(len(label) for label, _ in lines) + 1
    return [f"{label + ':':<{width}}  {command}" for label, command in lines]


def _recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from vlmdata.shipped import PIPELINES

    shipped = sorted(path.stem for path in PIPELINES.glob("train/*.yaml"))
    return [*files(ctx, param, incomplete), *words(shipped, incomplete)]
