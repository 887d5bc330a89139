"""Messages from the driver to workers: the job of a run once, then calls on partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vlmdata.recipe import Recipe


@dataclass(frozen=True)
class RunJob:
    """The recipe and OUT of a run, for every worker."""

    recipe: Recipe
    out: str


class PartitionCall(NamedTuple):
    """A partition, how many of its rows to take (None: all), through how many bound steps, with which global decisions."""

    partition: int
    take: int | None
    upto: int
    decided: tuple[str, ...]
