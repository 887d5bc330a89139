"""Find a part of a model by its name in a recipe: a file in a folder, or the dotted name of the user's own class.

A part's file holds one frozen dataclass. The fields of the class are the parameters that a recipe may set. The method `build`
returns the module. It may run while weights are placeholders (`placeholders.py`), so it must not read them; only a user's own
class may. The other methods return what is known without weights, such as sizes. The folder's `__init__` describes the methods.
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

FOLDERS = {  # kind of part: its folder
    "encoder": "encoders",
    "preprocessing": "preprocessing",
    "abstractor": "abstractors",
    "fusion": "fusions",
    "positions": "positions",
    "writing": "writings",
    "video": "videos",
    "language": "languages",
}


def part_names(kind: str) -> list[str]:
    """Return the names that a recipe may use for one kind of part: the files of its folder."""
    package = [str(Path(folder) / FOLDERS[kind]) for folder in vlmdata_train.__path__]
    return sorted(module.name for module in pkgutil.iter_modules(package))


def check_name(kind: str, entry: Any) -> None:
    """Raise RecipeError if a recipe's entry does not name a part of its kind.

    This imports no part, because most parts need torch.
    """
    name, _ = _named(kind, entry)
    if "." not in name and name not in part_names(kind):
        raise RecipeError(f"{kind}: there is no '{name}'.{catalog.suggest(name, part_names(kind))}")


def _named(kind: str, entry: Any) -> tuple[str, Any]:
    """Return the name and the parameters of a recipe's entry. Raises RecipeError if the entry has a wrong form."""
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1 or not isinstance(next(iter(entry)), str):
        raise RecipeError(f"{kind} must be one name with its parameters, such as {{mlp: {{layers: 2}}}}, not {entry!r}")
    return next(iter(entry.items()))


def find_part(kind: str, name: str) -> type:
    """Return the dataclass of a part by its name in a recipe. Raises RecipeError for an unknown name."""
    if "." in name:
        found = catalog.imported(name, f"{kind}: cannot import '{name}'")
        if not (dataclasses.is_dataclass(found) and isinstance(found, type)):
            raise RecipeError(
                f"{kind}: '{name}' must be a dataclass with the methods that vlmdata_train.{FOLDERS[kind]} describes"
            )
        return found
    check_name(kind, name)
    return catalog.only_class(f"vlmdata_train.{FOLDERS[kind]}.{name}", _is_part, "frozen dataclass")


def _is_part(cls: type) -> bool:
    """Return whether a class is a frozen dataclass."""
    return dataclasses.is_dataclass(cls) and getattr(cls, "__dataclass_params__").frozen  # noqa: B009 (mypy knows no such name)


def make_part(kind: str, entry: Any) -> Any:
    """Return a part from its entry in a recipe: a name, or a mapping of one name to its parameters.

    Raises RecipeError for an unknown name or a wrong parameter.
    """
    name, parameters = _named(kind, entry)
    if parameters is not None and not isinstance(parameters, Mapping):
        raise RecipeError(f"{kind}: the parameters of {name} must be a mapping, not {parameters!r}")
    return catalog.build(find_part(kind, name), dict(parameters or {}), kind)
