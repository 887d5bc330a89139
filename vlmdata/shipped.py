"""The recipes that ship with vlmdata: where they are, and what the comment at the top of each says."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

_INSIDE = Path(__file__).parent / "pipelines"  # folder of the shipped recipes in a wheel
PIPELINES = _INSIDE if _INSIDE.is_dir() else Path(__file__).parent.parent / "pipelines"


class About(NamedTuple):
    """What the comment of a shipped recipe says.

    `summary` is its first line. `command` is the command line that runs the recipe, and `settings` are the parameters that
    this command sets.
    """

    summary: str
    command: str
    settings: list[str]


def build_recipes() -> list[Path]:
    """Return the files of the shipped recipes that build datasets, sorted by name."""
    return sorted(PIPELINES.glob("build/*.yaml"))


def about(recipe: Path) -> About:
    """Return what the comment at the top of a shipped recipe says."""
    comment = re.match(r"(#.*\n)+", recipe.read_text())
    assert comment, f"{recipe} must open with a comment"
    lines = [line.removeprefix("#").strip() for line in comment[0].splitlines()]
    starts = [number for number, line in enumerate(lines) if line.startswith(f"vlmdata run {recipe.stem} ")]
    assert starts, f"the comment of {recipe} must hold the command that runs it"
    command = ""
    for line in lines[starts[0] :]:
        command += line.removesuffix("\\")
        if not line.endswith("\\"):
            break
    words = shlex.split(command)
    settings = [after.partition("=")[0] for word, after in itertools.pairwise(words) if word == "--set"]
    return About(lines[0], command, settings)
