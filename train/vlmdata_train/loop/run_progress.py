"""How far a run has come, which is where its schedule stands."""

from __future__ import annotations

import math

import numpy as np

from vlmdata.loader.packed import KEPT_WINDOWS, PackedPlan
from vlmdata_train.data.feed import Feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.recipe import Recipe


class RunProgress:
    """How much of the run is done: by steps, or by samples where the recipe counts epochs."""

    def __init__(self, recipe: Recipe, feed: Feed, ranks: Ranks) -> None:
        self.steps = recipe.steps
        self.samples: float | None = None
        if recipe.epochs is not None:
            assert feed.plan is not None
            rounds = math.ceil(recipe.epochs)
            most = samples_of_steps(feed.plan, rounds, feed.units, ranks.world, recipe.batches.accumulate)
            self.samples = min(used_samples(feed.plan, recipe.epochs), most)

    def share(self, step: int, samples: int) -> float:
        """Return the share of the run done, in [0, 1]. `samples` are those that were read, used or not."""
        if self.steps is not None:
            return step / self.steps
        assert self.samples is not None
        return min(1.0, samples / max(self.samples, 1))

    def is_over(self, step: int, samples: int) -> bool:
        """Say whether nothing is left to do. A run over epochs ends with its data at the latest."""
        return step >= self.steps if self.steps is not None else self.share(step, samples) >= 1


def used_samples(plan: PackedPlan, epochs: float) -> float:
    """Return how many samples come by in a number of epochs. Samples that are left out do not."""
    if all(lengths.starts is None for lengths in plan.lengths):
        return epochs * plan.samples(0)
    whole = math.floor(epochs)  # of alternative captions, some may be left out: each epoch draws others
    rest = epochs - whole
    return sum(map(plan.samples, range(whole))) + (rest * plan.samples(whole) if rest else 0.0)


def samples_of_steps(plan: PackedPlan, rounds: int, batch: int, world: int, accumulate: int) -> float:
    """Return how many samples the whole steps of some epochs take; what is left at the end is no step, and is not trained on.

    `batch` units of the plan are one forward pass of each rank. Packs of more windows than the cache keeps are not planned
    only to count them: infinity, for a step is a small part of them.
    """
    is_single = plan.packing.single
    if not is_single and rounds * plan.epoch_windows > KEPT_WINDOWS:
        return math.inf
    units = int(used_samples(plan, rounds)) if is_single else plan.end(0, rounds, 1 << 62)[0]
    passes = -(-(units // world) // batch)  # of the ranks that have the fewest
    taken = min(units, passes // accumulate * accumulate * batch * world)
    if is_single or taken == 0:
        return taken
    starts = plan.at(np.arange(taken)).starts
    assert starts is not None
    return int(starts[-1])
