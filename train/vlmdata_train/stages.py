"""Train the stages of a recipe one after another. Each stage starts from the last checkpoint of the stage before it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.notes import is_quiet
from vlmdata.shipped import PIPELINES
from vlmdata.step import RecipeError
from vlmdata_train.checks import check_training
from vlmdata_train.convert.checkpoint_folder import latest
from vlmdata_train.recipe import Recipe
from vlmdata_train.recipe_file import locate, override, parse, read_tree, with_home


def load_stages(recipe: str, *, overrides: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return the recipe of each stage as plain values, by the stage's name, in order.

    `recipe` is a file or the name of a shipped one. Its mapping `stages` has the changes of each stage, and everything else in
    it is common to all stages. `overrides` maps dotted paths, such as `stages.align.data`, to values. Raises RecipeError for
    the first mistake in any stage.
    """
    path = locate(recipe, sorted(PIPELINES.glob("stages/*.yaml")))
    tree = read_tree(path)
    for place, value in (overrides or {}).items():
        override(tree, place, value)
    tree = with_home(tree)
    stages = tree.pop("stages", None)
    if not isinstance(stages, dict) or not stages:
        raise RecipeError(f"{path}: `stages` must be a mapping of the stages' names to their changes")
    if not isinstance(tree.get("out"), str):
        raise RecipeError(f"{path}: set `out`, the folder of all stages")
    trees = {}
    for number, (name, changes) in enumerate(stages.items(), 1):
        where = f"{path}, stages, {name}"
        if not isinstance(changes, dict):
            raise RecipeError(f"{where}: the changes of a stage must be a mapping, not {changes!r}")
        if taken := sorted({"out", "model"} & changes.keys() | ({"start"} & changes.keys() if number > 1 else set())):
            raise RecipeError(f"{where}: `{taken[0]}` cannot be set for a stage, because a stage continues the one before it")
        trees[str(name)] = {**tree, **changes, "out": str(Path(tree["out"]) / f"{number}-{name}")}
        if number > 1:
            trees[str(name)].pop("start", None)
        check_training(parse(trees[str(name)], where))
    return trees


def device_of(trees: dict[str, dict[str, Any]]) -> str:
    """Return the device of all stages, or "auto" if they have different ones."""
    devices = {parse(tree, f"stages, {name}").speed.device for name, tree in trees.items()}
    return devices.pop() if len(devices) == 1 else "auto"


def recipes(trees: dict[str, dict[str, Any]]) -> Iterator[Recipe]:
    """Yield the recipe of each stage. Train with a recipe before you request the next one, which starts from the result.

    Raises RecipeError if a stage has saved no checkpoint.
    """
    before: str | None = None
    for number, (name, tree) in enumerate(trees.items(), 1):
        if not is_quiet():
            print(f"stage {number} of {len(trees)}: {name}", file=sys.stderr, flush=True)
        yield parse(tree if before is None else {**tree, "start": before}, f"stages, {name}")
        found = latest(Path(tree["out"]) / "checkpoints")
        if found is None:
            raise RecipeError(f"stages, {name}: the stage saved no checkpoint. Set `checkpoints.every` to 1 or more")
        before = str(found)
