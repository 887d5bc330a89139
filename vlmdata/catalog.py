"""Resolves names in a recipe. A plain name is a file in the folder of its kind. A dotted name is a user's class."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from vlmdata.errors import Mistakes
from vlmdata.generator import Generator
from vlmdata.parameters import wanted
from vlmdata.step import RecipeError, Source, Step
from vlmdata.untrusted import shown

MOST_SHOWN = 300  # characters of a value in a message
MOST_NAMES = 50  # known names in a message
MOST_UNKNOWN = 10  # unknown names of one mapping that get a line each
QUOTE = (
    "YAML reads no, 2024-01-31, 010 and ~ as other values than texts. If a text is meant, quote it: 'no', and with "
    "--set name=\"'no'\""
)
WANTED = {  # the validator's type of an error: what the value must be
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list, such as [a, b]"),
    "string_type": "a text",
    "dict_type": "a mapping, such as {a: b}",
}
KINDS = {"steps": Step, "sources": Source, "generators": Generator}  # folder: base class of its files


def names(kind: str) -> list[str]:
    """Return the names of the files in a folder of vlmdata, sorted. `kind` is "steps", "sources" or "generators"."""
    package = importlib.import_module(f"vlmdata.{kind}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(kind: str, name: str) -> type:
    """Return the class that a recipe calls `name`. Raises RecipeError for an unknown name."""
    base = KINDS[kind]
    if "." in name:
        found = imported(name, f"cannot import the {kind[:-1]} '{name}'")
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise RecipeError(f"'{name}' is not a {base.__name__}. Derive it from {base.__module__}.{base.__name__}")
        return found
    if name not in names(kind):
        raise RecipeError(f"there is no {kind[:-1]} '{name}'.{suggest(name, names(kind))}")
    return only_class(f"vlmdata.{kind}.{name}", lambda cls: issubclass(cls, base), base.__name__)


def imported(name: str, problem: str) -> Any:
    """Import and return the object with a user's dotted name.

    Raises RecipeError if the import fails. The message begins with `problem`.
    """
    module, _, attribute = name.rpartition(".")
    if not all(part.isidentifier() for part in name.split(".")):
        raise RecipeError(f"{problem}: write it as MODULE.CLASS")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{problem}: {error}") from None


def only_class(module: str, is_meant: Callable[[type], bool], what: str) -> type:
    """Return the only class that `module` defines and that `is_meant` accepts.

    Raises AssertionError if there is not exactly one. `what` is the noun for the class in the error's message.
    """
    own = [value for value in vars(importlib.import_module(module)).values() if getattr(value, "__module__", "") == module]
    found = [value for value in own if inspect.isclass(value) and is_meant(value)]
    assert len(found) == 1, f"{module} must hold exactly one {what}, not {len(found)}"
    return found[0]


def build(cls: type, parameters: dict[str, Any], where: str) -> Any:
    """Build a dataclass from plain values and check every type. Raises RecipeError, whose message begins with `where`."""
    known = [f.name for f in fields(cls)]
    mistakes = unknown(parameters, known, f"{where}: {cls.__name__} has no parameter", " It has no parameters")
    if len(mistakes) > 1:
        raise Mistakes(mistakes)
    if mistakes:
        raise RecipeError(mistakes[0])
    hints = typing.get_type_hints(cls, include_extras=True)
    for name, value in parameters.items():
        if isinstance(value, bool) and wanted(hints[name]) in ("a whole number", "a number"):  # true would count as 1
            raise RecipeError(f"{where}: {cls.__name__}.{name} = {value}: must be {wanted(hints[name])}")
    try:
        return adapter(cls).validate_python(parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        tags = ("str", "list[", "tuple[", "dict[", "literal[", "function-")  # of a union's branches; they are no places
        place = ".".join(str(p) for n, p in enumerate(first["loc"]) if not (n and str(p).startswith(tags)))
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise RecipeError(f"{where}: {cls.__name__} needs the parameter '{place}'") from None
        message = first["msg"].removeprefix("Value error, ")
        if not place:  # raised by the class itself, with a complete message
            raise RecipeError(f"{where}: {cls.__name__}: {message}") from None
        if isinstance(first.get("ctx", {}).get("error"), RecipeError):  # complete too; the value may hold a key
            lines = [f"{where}: {cls.__name__}.{place}: {line}" for line in message.split("\n")]
            raise (Mistakes(lines) if len(lines) > 1 else RecipeError(lines[0])) from None
        said = _said(first, hints.get(place), message)
        raise RecipeError(f"{where}: {cls.__name__}.{place} = {shown(first['input'], MOST_SHOWN)}: {said}") from None


def unknown(names: Iterable[object], known: Collection[str], problem: str, otherwise: str = "") -> list[str]:
    """Return a line for each name that is not known: `problem`, the name, and a suggestion, or `otherwise` if there is none.

    After ten lines, one more line has the number of the other names.
    """
    others = [str(name) for name in names if name not in known]
    some = others if len(others) <= MOST_UNKNOWN + 1 else others[:MOST_UNKNOWN]
    lines = [f"{problem} '{name}'.{suggest(name, list(known)) or otherwise}" for name in some]
    if len(others) > len(some):
        lines.append(f"{problem} '{others[len(some)]}', and {len(others) - len(some) - 1:,} more")
    return lines


def _said(error: Mapping[str, Any], kind: Any, message: str) -> str:
    """Return a validator's error about a value in plain words. `kind` is the type of the parameter, or None for a part."""
    value = error["input"]
    is_literal = error["type"] == "literal_error"
    words = wanted(kind) if kind is not None else WANTED.get(error["type"])
    if is_literal:
        words = error["ctx"]["expected"]
    elif error["type"] not in WANTED or words is None:
        return message
    if (is_literal or "text" in words or '"' in words) and not isinstance(value, str | list | tuple | dict):
        return f"must be {words}. {QUOTE}"
    if isinstance(value, str) and "number" in words and re.fullmatch(r"[-+]?[0-9][0-9_.]*[eE][-+]?[0-9]+", value):
        return f"must be {words}. Write it without an exponent"
    return f"must be {words}"


def adapter(cls: type) -> TypeAdapter:
    """Return pydantic's validator of a vlmdata dataclass."""
    assert not is_pydantic_dataclass(cls)
    return TypeAdapter(cls)  # `build` refuses unknown names, because pydantic cannot do it for a dataclass


def suggest(name: str, known: list[str]) -> str:
    """Return the end of a message about an unknown name: ' Did you mean ...?', or the first known names.

    A name that differs only in case and punctuation is nearest, such as ViT-B-32 to vitb32.
    """
    plain = {_plain(other): other for other in reversed(known)}
    close = [plain[_plain(name)]] if _plain(name) in plain else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = f" and {len(known) - MOST_NAMES:,} more" if len(known) > MOST_NAMES + 1 else ""
    return f" Known names: {', '.join(known[:MOST_NAMES] if more else known)}{more}" if known else ""


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower() or name
