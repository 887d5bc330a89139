"""What a folder or a repository holds: which dataset, in which format. A push replaces another one only if the user says so.

Two builds are of the same dataset if their recipes have the same source. Their steps may differ, as after a changed threshold.
The recipe is in the manifest of a dataset, and in the card of an export.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from vlmdata.card import FORMAT, RECIPE
from vlmdata.engine.store.json_shapes import Manifest, record_of
from vlmdata.redact import redacted_tree

MOST_VALUES = 1_000_000  # in a card
TAG = "vlmdata"  # in the metadata of every card
FORMATS = {  # by names of files; the first that occurs. `obelics` and `messages` are Parquet too, and their cards say so
    "energon": r"\.nv-meta/.+",
    "mds": r"shard\..+\.mds(\.zstd)?",
    "img2dataset": r"\d+_stats\.json",
    "hf": r"data-.+\.arrow",
    "parquet": r"data/train-.+\.parquet",
    "tars": r"\d+\.tar",
}


@dataclass(frozen=True)
class Identity:
    """A dataset, or an export to a format. `format` is None if the files do not show it, and `recipe` if no file has it."""

    is_dataset: bool
    family: str | None  # format by the names of the files
    format: str | None  # format that the card names
    recipe: Mapping[str, Any] | None
    source: str | None = None  # fingerprint of the source with the names and sizes of its files; only manifests have it

    def __str__(self) -> str:
        if self.is_dataset:
            return "a dataset of `vlmdata run`"
        name = self.format or self.family
        return f"an export to {name}" if name else "an export"


def identify(names: Collection[str], card: bytes | None, manifest: bytes | None) -> Identity | None:
    """Return what a push wrote, or None if vlmdata wrote neither the card nor the manifest.

    `names` are the names of the files, and `card` and `manifest` are the bytes of README.md and manifest.json, if they exist.
    A user may have changed the card. Then the manifest still shows whose files these are, if they are a dataset.
    """
    if manifest is not None:
        with contextlib.suppress(ValueError, RecursionError):
            record = record_of(manifest, Manifest)
            return Identity(True, None, None, record["recipe"], record["source"] or None)
    text = (card or b"").decode(errors="replace")
    if not is_own_card(text):
        return None
    if any(name.startswith("ledger/") for name in names):
        return Identity(True, None, None, _recipe_of(text))
    family = next((name for name, form in FORMATS.items() if any(re.fullmatch(form, one) for one in names)), None)
    named = FORMAT.search(text)
    return Identity(False, family, named[1] if named else None, _recipe_of(text))


def is_own_card(text: str) -> bool:
    """Return whether the text of a README.md is a card of vlmdata, by the tag in its metadata."""
    parts = text.split("---\n", 2)
    head = _yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    tags = head.get("tags") if isinstance(head, dict) else None
    return isinstance(tags, list) and TAG in tags


def difference(here: Identity, there: Identity, *, share: bool) -> str | None:
    """Return what a repository holds if it is not another build of what is to be pushed, as the end of a sentence.

    With `share`, they have a file of samples in common. This decides if a user has removed the recipe from the card.
    """
    same_format = here.format == there.format if here.format and there.format else here.family == there.family
    if here.is_dataset != there.is_dataset or not same_format:
        return f"{there}, and not {here}"
    if here.recipe is None or there.recipe is None:
        return None if share else f"{there}, which may be another dataset: without the recipe in both cards, this is not known"
    is_moved = here.source is not None and here.source == there.source  # the same files, perhaps at another path
    if not is_moved and not _alike(*(redacted_tree(one["source"]) for one in (here.recipe, there.recipe))):
        return f"{there} from another source"
    return None


def _alike(a: Any, b: Any) -> bool:
    """Return whether two JSON values agree. A parameter that only one of them has does not count: it is of a later version."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_alike(a[name], b[name]) for name in a.keys() & b.keys()) and bool(a.keys() & b.keys() or not (a or b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _recipe_of(card: str) -> Mapping[str, Any] | None:
    found = RECIPE.search(card)
    recipe = _yaml(found[1]) if found else None
    return recipe if isinstance(recipe, dict) and {"source", "steps"} <= recipe.keys() else None


def _yaml(text: str) -> Any:
    """Return the value of YAML from a stranger, or None if it is not YAML, or if its aliases make it huge."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    left, values = [value], 0
    while left and values < MOST_VALUES:
        one, values = left.pop(), values + 1
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return None if left else value
