"""What parameters mean, as data that `vlmdata steps`, docs/steps.md, the JSON Schema of recipes and editors share."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "any value"}


@dataclass(frozen=True)
class Doc:
    """The meaning of a parameter: `min_side: Annotated[int, Doc("...", unit="pixels", source="DataComp")] = 200`.

    `text` is one or more sentences. `unit` is the unit or range of a number. `source` says where the default comes from: a
    paper, a tool, or "vlmdata's choice".
    """

    text: str
    unit: str = ""
    source: str = ""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a dataclass. `kind` is its type in words, and `default` its default as a JSON value, if it has one."""

    name: str
    kind: str
    doc: Doc
    is_required: bool
    default: Any = None


def parameters(cls: type) -> list[Parameter]:
    """Return the parameters of a dataclass, required ones first, `label` last. A parameter without a Doc has an empty text."""
    hints = typing.get_type_hints(cls, include_extras=True)
    docs = _docs(cls)
    found = []
    for field in fields(cls):
        required = field.default is MISSING and field.default_factory is MISSING
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = None if required else json.loads(json.dumps(default, default=str))
        found.append(Parameter(field.name, in_words(hints[field.name]), docs.get(field.name, Doc("")), required, value))
    return sorted(found, key=lambda one: (not one.is_required, one.name == "label"))


def described(doc: Doc) -> str:
    """Return the text of a Doc with the unit and the source of the default, for an editor."""
    more = [f"Unit: {doc.unit}." if doc.unit else "", f"Default from: {doc.source}." if doc.source else ""]
    return " ".join(filter(None, [doc.text, *more]))


def in_words(kind: Any) -> str:
    """Return a type in words: `list of texts`, `number or null`, `"auto", "yes" or "no"`."""
    if get_origin(kind) is Annotated:
        return in_words(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        *first, last = (json.dumps(value) for value in get_args(kind))
        return f"{', '.join(first)} or {last}" if first else last
    if get_origin(kind) in (list, tuple):
        return f"list of {_plural(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return f"mapping of {_plural(key)} to {_plural(value)}"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def wanted(kind: Any) -> str:
    """Return what a value must be, for a message: `a whole number`, `a text or null`, `a list of texts, such as [a, b]`."""
    if get_origin(kind) is Annotated:
        return wanted(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(wanted(one) for one in get_args(kind))
    words = in_words(kind)
    if get_origin(kind) in (list, tuple):
        return f"a {words}, such as [{'1, 2' if 'number' in words else 'a, b'}]"
    if get_origin(kind) is dict:
        return f"a {words}, such as {{a: {'1' if 'number' in words else 'b'}}}"
    return f"a {words}" if words in ("whole number", "number", "text") else words


def _plural(kind: Any) -> str:
    words = in_words(kind)
    return f"{words}s" if words in ("whole number", "number", "text") else words.replace("mapping", "mappings", 1)


def _docs(cls: type) -> dict[str, Doc]:
    """Return the Docs of a class. A field that a subclass declares again without a Doc keeps that of the base class."""
    found: dict[str, Doc] = {}
    for base in cls.__mro__:
        for name, kind in typing.get_type_hints(base, include_extras=True).items():
            for doc in kind.__metadata__ if get_origin(kind) is Annotated else ():
                if isinstance(doc, Doc):
                    found.setdefault(name, doc)
    return found
