"""The fields that vlmdata writes to a sample's JSON. A source column that has the name of such a field gets a new name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

PREFIX = "column_"
RAW = "raw"  # the origin of captions from the source, and their key in the weights of captions


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


_WHOLE, _TEXT, _LIST = _is(int), _is(str), _is(list)
FIELDS: dict[str, Callable[[Any], bool]] = {  # fields of both layouts; the function accepts the values that vlmdata writes
    **dict.fromkeys(("key", "caption"), _TEXT),
    "url": _is(str, type(None)),
    **dict.fromkeys(("width", "height", "original_width", "original_height"), _WHOLE),
    "sha256": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "phash": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{1,16}", value) is not None,
    **dict.fromkeys(
        ("alternatives", "origins", "boxes", "box_labels", "texts", "images", "metadata", "files", "roles", "turns", "tools"),
        _LIST,
    ),
    **dict.fromkeys(("original_boxes", "view"), _LIST),
    "grounding": _is(list, dict),  # for each position of a document, or of a caption
    "scores": _is(dict),
}


def other_names(names: Iterable[str], ours: Collection[str] = FIELDS) -> dict[str, str]:
    """Return a dict from each name that is also in `ours` to a new name, such as `column_key` for `key`.

    By default, `ours` are vlmdata's own fields. The prefix `column_` is repeated until the new name is free. A new name is
    never in `ours`, so it does not change again when the dataset is used as a source.
    """
    taken = {*names, *ours}
    found = {}
    for name in names:
        if name in ours:
            found[name] = PREFIX + name
            while found[name] in taken:
                found[name] = PREFIX + found[name]
    return found


def carried(extra: str | None) -> dict[str, Any]:
    """Return a row's `extra`, a JSON object of source columns, as a dict.

    A column with the name of a vlmdata field gets the name that it has in the sample's JSON: see `other_names`.
    """
    return renamed(json.loads(extra or "{}"))


def renamed(columns: dict[str, Any], ours: Collection[str] = FIELDS) -> dict[str, Any]:
    """Return the columns with the names that `other_names` gives them."""
    others = other_names(columns, ours)
    return {others.get(name, name): value for name, value in columns.items()}


def aligned_origins(alternatives: Any, origins: Any) -> list[str | None]:
    """Return the origin of each alternative: the name of the step that wrote it, or None if it came from the source.

    `alternatives` and `origins` are the values of these fields in a sample's JSON, or in a text of a row, and may be anything.
    All origins are None if `origins` is not a list of strings and nulls with the length of `alternatives`. The names "" and
    "raw" mean the source too. If `alternatives` is not a list, the result is empty.
    """
    if not isinstance(alternatives, list):
        return []
    if not isinstance(origins, list) or len(origins) != len(alternatives) or not all(map(_is_origin, origins)):
        return [None] * len(alternatives)
    return [None if origin in ("", RAW) else origin for origin in origins]


def _is_origin(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not re.search("[\ud800-\udfff]", value))


def is_ours(name: str, value: Any, key: str) -> bool:
    """Return whether vlmdata or img2dataset may have written the field `name` in the JSON of the sample `key`."""
    return name in FIELDS and FIELDS[name](value) and (name != "key" or value == key)
