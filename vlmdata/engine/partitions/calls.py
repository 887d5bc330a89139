"""Messages from the driver to workers: first the job of the run, then calls on partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vlmdata.recipe import Recipe


@dataclass(frozen=True)
class RunJob:
    """What every worker of a run gets: the recipe and the output folder OUT."""

    recipe: Recipe
    out: str


class PartitionCall(NamedTuple):
    """A call on a partition: run its first `take` rows (None: all) through `upto` bound steps, with the decisions `decided`."""

    partition: int
    take: int | None
    upto: int
    decided: tuple[str, ...]
