"""Read Visual Genome's files entry by entry, so that memory does not grow with them, in all published versions.

Each file is an array with one object for each image, which holds the list of the image's objects, regions or questions. The
files have the images in nearly the same order, but nothing here depends on it. Source of the fields: the code in
ranjaykrishna/visual_genome_python_driver (MIT) and `datasets/visual_genome` of huggingface/datasets (Apache-2.0).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vlmdata.readers import json_records
from vlmdata.readers.find_files import File
from vlmdata.readers.open_file import Damage
from vlmdata.readers.plain_rows import Bad
from vlmdata.readers.published_json import opened_json
from vlmdata.readers.source_images import web_address
from vlmdata.readers.stated_values import Box, box, whole_numbers
from vlmdata.readers.strings import one_line_each
from vlmdata.step import RecipeError

LARGEST_ID = 1 << 62


class Facts(NamedTuple):
    """What `image_data.json` states about an image. Sizes are in pixels; a value that it does not state is None."""

    url: str | None
    width: int | None
    height: int | None
    coco_id: int | None
    flickr_id: int | None


def file_named(files: list[File], stem: str) -> File | None:
    """Return the file of Visual Genome's kind `stem` (such as "objects"), of any version, or None if there is none.

    The name is the stem, perhaps with a version, as in `objects_v1_4.json`, and an ending of JSON_ENDINGS. An unpacked file is
    preferred to its zip archive. Raises RecipeError if there are several versions.
    """
    pattern = re.compile(rf"{stem}(_v\d+(_\d+)?)?\.json(\.\w+)?", re.IGNORECASE)
    found: dict[str, File] = {}
    for file in sorted(files, key=lambda file: len(file.path)):
        name = os.path.basename(file.path)
        if pattern.fullmatch(name):
            found.setdefault(file.path[: len(file.path) - len(name)] + name.lower().partition(".json")[0], file)
    if len(found) > 1:
        names = " and ".join(os.path.basename(file.path) for file in list(found.values())[:2])
        raise RecipeError(f"source.path holds {names}. Name the file that you mean, and image_data.json, in source.path")
    return next(iter(found.values()), None)


def entries(path: str) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """Yield the objects of a file with their numbers, from 1. Raises RecipeError for a file that is not an array or is cut."""
    with opened_json(path) as file:
        try:
            yield from enumerate(json_records.items(file, "json", "utf-8"), 1)
        except Damage as error:
            raise RecipeError(f"{path} cannot be read: {error}") from None


def image_facts(path: str) -> dict[int, Facts]:
    """Return what `image_data.json` states, by image id, about 0.6 kB of memory for each. The first entry of an id counts."""
    found: dict[int, Facts] = {}
    for _, one in entries(path):
        number = None if isinstance(one, Bad) else image_id(one)
        if number is None or isinstance(one, Bad):
            continue
        width, height = whole_numbers([one.get("width"), one.get("height")]).to_pylist()
        ids = whole_id(one.get("coco_id")), whole_id(one.get("flickr_id"))
        found.setdefault(number, Facts(web_address(one.get("url")), width or None, height or None, *ids))
    return found


def image_id(entry: Mapping[str, Any]) -> int | None:
    """Return the id of the image that an entry is about: its `image_id`, or `id` in older versions, or None."""
    return whole_id(entry.get("image_id", entry.get("id")))


def whole_id(value: object) -> int | None:
    """Return a whole number from 0 to 2**62, also one in a text, or None for any other value."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and 0 <= value < LARGEST_ID else None


def place_of(item: Mapping[str, Any]) -> Box | None:
    """Return the box of an object or region as [x0, y0, x1, y1] in pixels, or None if it is not four finite numbers.

    Objects have `w` and `h`, and regions have `width` and `height`.
    """
    sides = item.get("w", item.get("width")), item.get("h", item.get("height"))
    found = box([item.get("x"), item.get("y"), *sides])
    return None if found is None else box([found[0], found[1], found[0] + found[2], found[1] + found[3]])


def name_of(item: Mapping[str, Any]) -> str | None:
    """Return the first name of an object: in `names`, `object_names` or `name`, as the versions have it."""
    values = [item.get(field) for field in ("names", "object_names", "name")]
    found = one_line_each(one for value in values for one in (value if isinstance(value, list) else [value]))
    return found[0] if found else None


def attributes_of(item: Mapping[str, Any]) -> list[str]:
    """Return the distinct attributes of an object in their order, or an empty list."""
    value = item.get("attributes")
    return one_line_each(value) if isinstance(value, list) else []
