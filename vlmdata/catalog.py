"""Names in a recipe: a name is a file in a folder, a dotted name is the user's own class."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from vlmdata.step import RecipeError, Source, Step

KINDS = {"steps": Step, "sources": Source}


def names(kind: str) -> list[str]:
    """List the files of vlmdata/steps or vlmdata/sources."""
    package = importlib.import_module(f"vlmdata.{kind}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(kind: str, name: str) -> type:
    """Return the class that a name in a recipe means. Raises RecipeError for an unknown one."""
    if "." in name:
        return _own(kind, name)
    if name not in names(kind):
        raise RecipeError(f"there is no {kind[:-1]} '{name}'.{suggest(name, names(kind))}")
    return _only_class(importlib.import_module(f"vlmdata.{kind}.{name}"), KINDS[kind])


def _own(kind: str, name: str) -> type:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"cannot import the {kind[:-1]} '{name}': {error}") from None
    if not (inspect.isclass(found) and issubclass(found, KINDS[kind])):
        raise RecipeError(f"'{name}' is not a {KINDS[kind].__name__}: derive it from vlmdata.step.{KINDS[kind].__name__}")
    return found


def _only_class(module: Any, base: type) -> type:
    found = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, base) and c.__module__ == module.__name__]
    assert len(found) == 1, f"{module.__name__} must hold exactly one {base.__name__}, not {len(found)}"
    return found[0]


def build(cls: type, parameters: dict[str, Any], where: str) -> Any:
    """Make a dataclass from plain values, with every type checked. Raises RecipeError naming the place and the fix."""
    known = [f.name for f in fields(cls)]
    for name in parameters:
        if name not in known:
            raise RecipeError(f"{where}: {cls.__name__} has no parameter '{name}'.{suggest(str(name), known)}")
    try:
        return adapter(cls).validate_python(parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(p) for p in first["loc"])
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise RecipeError(f"{where}: {cls.__name__} needs the parameter '{place}'") from None
        message = first["msg"].removeprefix("Value error, ")
        if not place:  # what the class itself refuses, which says more than all parameters together
            raise RecipeError(f"{where}: {cls.__name__}: {message}") from None
        raise RecipeError(f"{where}: {cls.__name__}.{place} = {first['input']!r}: {message}") from None


def adapter(cls: type) -> TypeAdapter:
    """Return pydantic's checker for a dataclass of ours."""
    assert not is_pydantic_dataclass(cls)
    return TypeAdapter(cls)  # a dataclass takes no other configuration than its own; `build` refuses unknown names


def suggest(name: str, known: list[str]) -> str:
    """Return ' Did you mean ...?' or a short list of what there is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" There is: {', '.join(known)}" if known else ""
