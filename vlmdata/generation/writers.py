"""Which models wrote texts of a dataset, and how they were asked, from its manifest. The manifest may come from strangers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Writer(NamedTuple):
    """A step that asked a generator: the generator's name, the names of its models, and the texts of its prompts by name."""

    step: str
    generator: str
    models: list[str]
    prompts: dict[str, str]


def writers(manifest: Mapping[str, Any]) -> list[Writer]:
    """Return the steps whose answers the manifest counts. A model without a name is left out."""
    found = []
    for step in manifest["generations"]:
        notes = manifest["models"].get(step, [])
        prompts: dict[str, str] = {}
        for note in notes:
            if isinstance(texts := note.get("prompts"), dict):
                prompts |= {str(name): str(text) for name, text in texts.items()}
        generator = next((str(note["generator"]) for note in notes if "generator" in note), "")
        models = dict.fromkeys(note["model"] for note in notes if isinstance(note.get("model"), str))
        found.append(Writer(step, generator, list(models), prompts))
    return found
