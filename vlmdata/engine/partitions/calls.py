"""Messages from the driver to workers: first the job of the run, then calls on partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vlmdata.recipe import Recipe


@dataclass(frozen=True)
class RunJob:
    """What every worker of a run gets: the recipe and the output folder OUT. `run` is the name of the run, 8 hex digits."""

    recipe: Recipe
    out: str
    run: str = ""


class PartitionCall(NamedTuple):
    """A call on a partition: run the first `upto` steps of the compiled recipe on its rows.

    With `take`, only the first `take` rows are used. `decided` names the files of the global decisions to apply.
    """

    partition: int
    take: int | None
    upto: int
    decided: tuple[str, ...]
