"""What a source reads from an export, and what the dataset holds, in one form to compare: positions with roles."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.exporting.made import Made
from tests.sources.reading import read_all
from vlmdata.step import Source

Position = tuple[str | None, str | bytes, Any]  # role, text or bytes of an image, the entry of `turns`


def made(sample: Made) -> list[Position]:
    """Return the positions of a sample that `made` gave."""
    members = sample[1]
    facts = json.loads(members["json"])
    empty = [None] * len(facts["texts"])
    roles, turns = facts.get("roles") or empty, facts.get("turns") or empty
    entries = zip(roles, facts["texts"], facts["metadata"], turns, strict=True)
    return [(role, text if place is None else members[place["file"]], turn) for role, text, place, turn in entries]


def read(source: Source) -> list[list[Position]]:
    """Return the positions of each row of a source, in order. No row may be dropped."""
    return [_positions(row) for row in read_all(source).to_pylist()]


def both(samples: Iterable[Made], source: Source) -> tuple[list[list[Position]], list[list[Position]]]:
    """Return the positions of the samples, and those that the source reads, both sorted, because lists are read by key."""
    return sorted(map(made, samples), key=repr), sorted(read(source), key=repr)


def whole_rows(source: Source) -> list[dict[str, Any]]:
    """Return the rows of a source, sorted, with the bytes of images instead of their places, and without the rows' places."""
    rows = []
    for row in read_all(source).to_pylist():
        for image in filter(None, row["images"]):
            image["data"] = _bytes(image)
            image |= dict.fromkeys(("blob", "offset", "size"))
        rows.append({**row, "extra": json.loads(row["extra"]), "place": None})
    return sorted(rows, key=lambda row: row["extra"]["source_key"])


def _positions(row: dict[str, Any]) -> list[Position]:
    assert row["drop"] is None, (row["reason"], row.get("problem"))
    count = len(row["texts"])
    turns = [one and json.loads(one) for one in row.get("turns") or [None] * count]
    entries = zip(row.get("roles") or [None] * count, row["texts"], row["images"], turns, strict=True)
    return [(role, text["text"] if image is None else _bytes(image), turn) for role, text, image, turn in entries]


def _bytes(image: dict[str, Any]) -> bytes:
    assert image["drop"] is None, image["reason"]
    if image.get("data"):
        return image["data"]
    return Path(image["blob"]).read_bytes()[image["offset"] :][: image["size"]]
