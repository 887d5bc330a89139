"""Reads a training recipe from YAML. Inserts the model of the checkpoint in `start`, and the text of a chat template's file."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from vlmdata import catalog
from vlmdata.home_folder import at_home
from vlmdata.read_yaml import read_yaml
from vlmdata.shipped import PIPELINES
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import is_checkpoint, model_of
from vlmdata_train.recipe import Recipe, build_recipe

PLACES = ("out", "start", "data")  # keys of a recipe that may have a path


def load(recipe: str | Path, *, stage: str | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read and check a recipe, which is a file or the name of a shipped recipe, such as `tiny`.

    `stage` replaces the recipe's stage. `overrides` maps dotted paths, such as `optimizer.clip`, to values. If they set `start`
    of a shipped recipe to a published model, but no part of `model`, the recipe gets the parts of the published model. Raises
    RecipeError if the recipe cannot be read or is not valid.
    """
    path = locate(str(recipe), sorted(PIPELINES.glob("train/*.yaml")))
    tree = read_tree(path)
    if "stages" in tree:
        raise RecipeError(f"{path} is a recipe of several stages. Use `vlmdata train stages {recipe}`")
    overrides = overrides or {}
    start = overrides.get("start")
    is_shipped = path.resolve().is_relative_to(PIPELINES.resolve())
    if is_shipped and isinstance(start, str) and not is_checkpoint(start) and not any(p.startswith("model") for p in overrides):
        tree["model"] = None
    for place, value in overrides.items():
        override(tree, place, value)
    if stage is not None:
        tree["stage"] = stage
    return parse(tree, str(path))


def parse(tree: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values. Raises RecipeError with the place of the first mistake."""
    tree = with_home(tree)
    own = tree.get("model")
    if (own is None or (isinstance(own, dict) and own.keys() == {"grounding"})) and isinstance(tree.get("start"), str):
        tree = {**tree, "model": {**dataclasses.asdict(model_of(tree["start"])), **(own or {})}, "tokenizer": None}
    if isinstance(tree.get("chat_template"), str):
        tree = {**tree, "chat_template": _template(tree["chat_template"], f"{where}, chat_template")}
    return build_recipe(tree, where)


def with_home(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's plain values with the home folder in place of `~` in the paths of the run and of its data."""
    tree = {name: at_home(value) if name in PLACES and isinstance(value, str) else value for name, value in tree.items()}
    if isinstance(tree.get("data"), dict):
        tree["data"] = {at_home(str(path)): share for path, share in tree["data"].items()}
    held = tree.get("held_out")
    if isinstance(held, dict) and isinstance(held.get("path"), str):
        tree["held_out"] = {**held, "path": at_home(held["path"])}
    return tree


def read_tree(path: Path) -> dict[str, Any]:
    """Return the content of a recipe file. Raises RecipeError if it cannot be read as a mapping."""
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a training recipe must be a mapping with model, data and parts")
    return tree


def locate(recipe: str, shipped: list[Path]) -> Path:
    """Return the path of a recipe, which is a file or the name of a shipped one. Raises RecipeError if there is none."""
    if (file := Path(at_home(recipe))).is_file():
        return file
    for path in shipped:
        if recipe in (path.stem, str(Path(*path.parts[-3:]))):
            return path
    raise RecipeError(f"there is no training recipe '{recipe}'.{catalog.suggest(recipe, [p.stem for p in shipped])}")


def _template(entry: str, where: str) -> str:
    """Return the chat template of `entry`, which is Jinja or the path of a Jinja file. Raises RecipeError if it is neither."""
    text, place = entry, where
    if "{" not in entry:
        place = f"{where}: {entry}"
        try:
            text = Path(at_home(entry)).read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise RecipeError(f"{place} must be Jinja or a Jinja file: {why}") from None
    # remove tags of transformers around the assistant's text, which Jinja does not know
    plain = re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", text)
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except TemplateSyntaxError as error:
        raise RecipeError(f"{place}, line {error.lineno}: {error.message}") from None
    return text


def override(tree: dict[str, Any], place: str, value: Any) -> None:
    """Set the value at a dotted path of a tree. Missing mappings are added."""
    *heads, last = place.split(".")
    target = tree
    for name in heads:
        if not isinstance(target.get(name), dict):
            target[name] = {}
        target = target[name]
    target[last] = value
