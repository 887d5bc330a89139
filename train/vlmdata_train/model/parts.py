"""Find a part of a model by its name in a recipe: a file in a folder, or the user's own class by a dotted name.

A part's file holds one frozen dataclass: its fields are the parameters a recipe may set, its methods the facts a plan
needs before any weight exists, and `build` makes the module. The folder's `__init__` says what its parts must answer.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vlmdata_train
from vlmdata import catalog
from vlmdata.step import RecipeError

FOLDERS = {  # the kinds of part, and the folder of each
    "encoder": "encoders",
    "preprocessing": "preprocessing",
    "abstractor": "abstractors",
    "fusion": "fusions",
    "positions": "positions",
    "language": "languages",
}


def part_names(kind: str) -> list[str]:
    """List the names that a recipe may use for one kind of part: the files of its folder."""
    package = [str(Path(folder) / FOLDERS[kind]) for folder in vlmdata_train.__path__]
    return sorted(module.name for module in pkgutil.iter_modules(package))


def check_name(kind: str, entry: Any) -> None:
    """Raise RecipeError for a recipe's entry that names no part of its kind. No part is imported, for most need torch."""
    name, _ = _named(kind, entry)
    if "." not in name and name not in part_names(kind):
        raise RecipeError(f"{kind}: there is no '{name}'.{catalog.suggest(name, part_names(kind))}")


def _named(kind: str, entry: Any) -> tuple[str, Any]:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1 or not isinstance(next(iter(entry)), str):
        raise RecipeError(f"{kind}: one name with its parameters is meant, as in {{mlp: {{layers: 2}}}}, not {entry!r}")
    return next(iter(entry.items()))


def find_part(kind: str, name: str) -> type:
    """Return the dataclass that a name in a recipe stands for. Raises RecipeError for an unknown one."""
    if "." in name:
        found = catalog.imported(name, f"{kind}: cannot import '{name}'")
        if not (dataclasses.is_dataclass(found) and isinstance(found, type)):
            raise RecipeError(f"{kind}: '{name}' must be a dataclass with the methods of {FOLDERS[kind]}")
        return found
    check_name(kind, name)
    return catalog.only_class(f"vlmdata_train.{FOLDERS[kind]}.{name}", _is_part, "frozen dataclass")


def _is_part(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and getattr(cls, "__dataclass_params__").frozen  # noqa: B009 (mypy knows no such name)


def make_part(kind: str, entry: Any) -> Any:
    """Make a part from its recipe entry: a name alone, or a mapping of one name to its parameters."""
    name, parameters = _named(kind, entry)
    return catalog.build(find_part(kind, name), dict(parameters or {}), kind)
