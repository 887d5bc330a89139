"""The JSON Schema of a recipe, generated from the dataclasses: `python -m vlmdata.schema > schemas/recipe.json`.

Editors use it to complete and check recipes.
"""

from __future__ import annotations

import json
from typing import Any

from vlmdata import catalog
from vlmdata.recipe import Shards


def recipe_schema() -> dict[str, Any]:
    """Return the schema of a recipe: every shipped source and step with parameters, types and defaults."""
    definitions: dict[str, Any] = {}
    sources, steps = [], []
    for name in catalog.names("sources"):
        definitions[f"source_{name}"] = _parameters(catalog.find("sources", name), {"type": {"const": name}})
        sources.append({"$ref": f"#/$defs/source_{name}"})
    for name in catalog.names("steps"):
        definitions[f"step_{name}"] = _parameters(catalog.find("steps", name), {})
        body = {"oneOf": [{"$ref": f"#/$defs/step_{name}"}, {"type": "null"}]}
        steps.append({"type": "object", "properties": {name: body}, "required": [name], "additionalProperties": False})
    own = {"type": "object", "patternProperties": {r"^\w+(\.\w+)+$": {}}, "additionalProperties": False, "minProperties": 1}
    dotted = {"type": "string", "pattern": r"^\w+(\.\w+)+$"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vlmdata recipe",
        "type": "object",
        "required": ["source"],
        "additionalProperties": False,
        "properties": {
            "source": {"anyOf": [*sources, {"type": "object", "properties": {"type": dotted}, "required": ["type"]}]},
            "steps": {"type": "array", "items": {"anyOf": [{"enum": catalog.names("steps")}, dotted, *steps, own]}},
            "shards": _parameters(Shards, {}),
            "part_rows": {"type": "integer", "minimum": 1, "default": 1000},
        },
        "$defs": definitions,
    }


def _parameters(cls: type, more: dict[str, Any]) -> dict[str, Any]:
    schema = catalog.adapter(cls).json_schema()
    assert "$defs" not in schema, f"{cls.__name__} has a parameter whose type is a class, but recipes hold only plain values"
    schema["properties"] = {**more, **schema.get("properties", {})}
    schema["required"] = sorted({*more, *schema.get("required", [])})
    schema["additionalProperties"] = False
    return schema


def text() -> str:
    """Return the content of schemas/recipe.json."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
