"""What the driver sends to workers: the job of a run once, then calls on partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vlmdata.recipe import Recipe


@dataclass(frozen=True)
class RunJob:
    """What every worker of a run must know; small enough to send."""

    recipe: Recipe
    out: str


class PartitionCall(NamedTuple):
    """Which partition, how many of its rows (all where None), through how many links, with which decisions over all rows."""

    partition: int
    take: int | None
    upto: int
    decided: tuple[str, ...]
