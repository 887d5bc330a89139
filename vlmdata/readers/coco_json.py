"""Read files in the form of COCO's JSON: an object with the lists `images`, `annotations`, `categories` and `licenses`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmdata.readers.open_file import opened
from vlmdata.readers.stated_values import Box, box
from vlmdata.step import RecipeError


def load(path: str) -> dict[str, Any]:
    """Return the object of a file, which is read into memory. Raises RecipeError if the file has another form."""
    with opened(path) as file:
        try:
            text = file.read()
            tree = json.loads(text) if text.strip() else None
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{path} is not valid JSON: {error}") from None
    if not tree:  # an empty file, {} or []: no images
        return {"images": [], "annotations": []}
    if not isinstance(tree, dict) or not isinstance(tree.get("images"), list) or not isinstance(tree.get("annotations"), list):
        raise RecipeError(f"{path} is not COCO's JSON. It must be an object with the lists 'images' and 'annotations'")
    return tree


def entries(path: str, tree: Mapping[str, Any], name: str, key: str) -> list[dict[str, Any]]:
    """Return the list `name` of a file. Raises RecipeError if an entry is not an object with a number or string under `key`."""
    found = tree.get(name) or []
    for number, one in enumerate(found):
        if not isinstance(one, dict) or not isinstance(one.get(key), int | str):
            raise RecipeError(f"{path}: {name}[{number}] must be an object with a number or string as '{key}'")
    return found


def named(known: Mapping[Any, Any], number: object) -> Any:
    """Return the entry with the id `number`, or None if there is no such entry. An id must be an integer or a string."""
    return known.get(number) if isinstance(number, int | str) else None


def corners(bbox: object) -> Box | None:
    """Return COCO's [x, y, width, height] as [x0, y0, x1, y1], or None if the box is not four finite numbers."""
    found = box(bbox)
    if found is None:
        return None
    x, y, width, height = found
    return box([x, y, x + width, y + height])
