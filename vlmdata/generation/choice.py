"""The parameter `generator` of a step: the name of a generator, with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator

from vlmdata import catalog
from vlmdata.errors import RecipeError
from vlmdata.generator import Generator
from vlmdata.parameters import Doc
from vlmdata.untrusted import shown

FORM = "write it as {NAME: {parameter: value}}, such as {hf: {model: FOLDER}}"


def made(choice: Mapping[str, Any]) -> Generator:
    """Return the generator that a value of the parameter names.

    Raises RecipeError for a mistake. The error names parameters but does not hold their values, because one may be a key.
    """
    if not isinstance(choice, Mapping) or len(choice) != 1:
        given = f"a mapping with the names {shown(list(choice))}" if isinstance(choice, Mapping) else shown(choice)
        raise RecipeError(f"{FORM}, not {given}. Names: {', '.join(catalog.names('generators'))}")
    (name, parameters), *_ = choice.items()
    if not isinstance(name, str) or not isinstance(parameters, Mapping | None):
        raise RecipeError(f"{FORM}. The value of {shown(name)} is a {type(parameters).__name__}")
    return catalog.build(catalog.find("generators", name), dict(parameters or {}), name)


def completed(choice: Any) -> dict[str, Any]:
    """Return the value with all defaults of the generator, so that a dataset's manifest states them."""
    generator = made({choice: None} if isinstance(choice, str) else choice)
    name = choice if isinstance(choice, str) else next(iter(choice))
    return {name: asdict(generator)}


GeneratorChoice = Annotated[
    dict[str, Any],
    BeforeValidator(completed),
    Doc("The model that writes: the name of a generator, with its parameters. See [generators](generators.md)."),
]
"""The type of a parameter that names a generator: {name: {parameter: value}}."""
