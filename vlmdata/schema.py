"""The JSON Schema of a recipe, generated from the dataclasses: `python -m vlmdata.schema > schemas/recipe.json`.

Editors use it to complete and check recipes.
"""

from __future__ import annotations

import json
import typing
from typing import Any

from vlmdata import catalog, reference
from vlmdata.generation.choice import GeneratorChoice
from vlmdata.parameters import described, parameters
from vlmdata.recipe import Recipe, Shards

OWN = {"type": "object", "patternProperties": {r"^\w+(\.\w+)+$": {}}, "additionalProperties": False, "minProperties": 1}
DOTTED = {"type": "string", "pattern": r"^\w+(\.\w+)+$"}  # a user's class


def recipe_schema() -> dict[str, Any]:
    """Return the schema of a recipe: every shipped source, step and generator with parameters, types, defaults and meaning."""
    definitions: dict[str, Any] = {}
    sources, plain, steps = [], [], []
    known = reference.every()
    for one in known["generators"]:
        name, cls = one["name"], catalog.find("generators", one["name"])
        definitions[f"generator_{name}"] = _parameters(cls, {}, reference.settings(name, cls))
    for one in known["sources"]:
        name, cls = one["name"], catalog.find("sources", one["name"])
        kind = {"const": name, "description": one["summary"]}
        definitions[f"source_{name}"] = _parameters(cls, {"type": kind}, reference.settings(name, cls))
        sources.append({"$ref": f"#/$defs/source_{name}"})
    for one in known["steps"]:
        name, cls = one["name"], catalog.find("steps", one["name"])
        definitions[f"step_{name}"] = _parameters(cls, {}, reference.settings(name, cls))
        body = {"oneOf": [{"$ref": f"#/$defs/step_{name}"}, {"type": "null"}], "description": one["summary"]}
        plain.append({"const": name, "description": one["summary"]})
        steps.append({"type": "object", "properties": {name: body}, "required": [name], "additionalProperties": False})
    texts = {one.name: described(one.doc) for one in parameters(Recipe)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vlmdata recipe",
        "type": "object",
        "required": ["source"],
        "additionalProperties": False,
        "properties": {
            "source": {
                "description": texts["source"],
                "anyOf": [*sources, {"type": "object", "properties": {"type": DOTTED}, "required": ["type"]}],
            },
            "steps": {"description": texts["steps"], "type": "array", "items": {"anyOf": [*plain, DOTTED, *steps, OWN]}},
            "shards": {**_parameters(Shards, {}, {}), "description": texts["shards"]},
            "part_rows": {"description": texts["part_rows"], "type": "integer", "minimum": 1, "default": 1000},
        },
        "$defs": definitions,
    }


def _parameters(cls: type, more: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a dataclass. `more` are further properties, and `example` the values of an example."""
    schema = catalog.adapter(cls).json_schema()
    assert "$defs" not in schema, f"{cls.__name__} has a parameter whose type is a class, but recipes hold only plain values"
    hints = typing.get_type_hints(cls, include_extras=True)
    for one in parameters(cls):
        if hints[one.name] == GeneratorChoice:
            schema["properties"][one.name] = generator_choice()
        place = schema["properties"][one.name]
        place["description"] = described(one.doc)
        if not one.is_required:
            place["default"] = one.default
        if one.name in example:
            place["examples"] = [example[one.name]]
    schema["properties"] = {**more, **schema.get("properties", {})}
    schema["required"] = sorted({*more, *schema.get("required", [])})
    schema["additionalProperties"] = False
    return schema


def generator_choice() -> dict[str, Any]:
    """Return the schema of a parameter that names a generator: a shipped one with its parameters, or a user's class.

    The name alone is allowed if no parameter is required.
    """
    choices: list[dict[str, Any]] = []
    for one in reference.every_of("generators"):
        name, summary = one["name"], {"description": one["summary"]}
        body: dict[str, Any] = {"$ref": f"#/$defs/generator_{name}"}
        if not any(parameter["required"] for parameter in one["parameters"]):
            choices.append({"const": name, **summary})
            body = {"oneOf": [body, {"type": "null"}]}
        choices.append(
            {"type": "object", "properties": {name: {**body, **summary}}, "required": [name], "additionalProperties": False}
        )
    return {"oneOf": [*choices, DOTTED, {**OWN, "maxProperties": 1}]}


def text() -> str:
    """Return the content of schemas/recipe.json."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
