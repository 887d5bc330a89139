"""The columns that vlmdata adds to img2dataset's, and the names of source columns that img2dataset's own columns take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from vlmdata.fields import PREFIX

OUR_KEY = "vlmdata_key"  # column with the key of a sample in the exported dataset. Only vlmdata writes it
_TAKEN = re.compile(f"(?:{PREFIX})*(?:status|error_message|exif|{OUR_KEY})")


def escaped(name: str) -> str:
    """Return the name under which a column of the source is exported: `status` becomes `column_status`."""
    return PREFIX + name if _TAKEN.fullmatch(name) else name


def unescaped(name: str) -> str:
    """Return the name that `escaped` was given."""
    return name.removeprefix(PREFIX) if _TAKEN.fullmatch(name) else name


def json_columns(schema: pa.Schema) -> list[str]:
    """Return the columns with the type `arrow.json`, which hold JSON as text."""
    return [field.name for field in schema if getattr(field.type, "extension_name", "") == "arrow.json"]


def parsed(record: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    """Return a record with the values of these columns parsed. A value that is not JSON stays text."""
    found = dict(record)
    for name in columns:
        if isinstance(found[name], str):
            try:
                found[name] = json.loads(found[name])
            except (ValueError, RecursionError):
                continue
    return found
