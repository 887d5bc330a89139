"""The progress of a run. The learning-rate schedule depends on it."""

from __future__ import annotations

import math

import numpy as np

from vlmdata.loader.packed import KEPT_WINDOWS, PackedPlan
from vlmdata_train.data.feed import Feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.recipe import Recipe


class RunProgress:
    """Computes the share of a run that is done: by steps, or by samples if the recipe sets epochs."""

    def __init__(self, recipe: Recipe, feed: Feed, ranks: Ranks) -> None:
        self.steps = recipe.steps
        self.samples: float | None = None
        if recipe.epochs is not None:
            assert feed.plan is not None
            rounds = math.ceil(recipe.epochs)
            in_steps = samples_of_steps(feed.plan, rounds, feed.units, ranks.world, recipe.batches.accumulate)
            self.samples = min(used_samples(feed.plan, recipe.epochs), in_steps)

    def share(self, step: int, samples: int) -> float:
        """Return the share of the run that is done, in [0, 1]. `samples` counts all samples read, even unusable ones."""
        if self.steps is not None:
            return step / self.steps
        assert self.samples is not None
        return min(1.0, samples / max(self.samples, 1))

    def is_over(self, step: int, samples: int) -> bool:
        """Return whether no step is left. A run that counts epochs may end earlier, when its data ends."""
        return step >= self.steps if self.steps is not None else self.share(step, samples) >= 1


def used_samples(plan: PackedPlan, epochs: float) -> float:
    """Return the number of samples in these epochs, without the samples that are left out."""
    if all(lengths.starts is None for lengths in plan.lengths):
        return epochs * plan.samples(0)
    whole = math.floor(epochs)  # count each epoch, because each draws different captions, and some captions are left out
    rest = epochs - whole
    return sum(map(plan.samples, range(whole))) + (rest * plan.samples(whole) if rest else 0.0)


def samples_of_steps(plan: PackedPlan, rounds: int, batch: int, world: int, accumulate: int) -> float:
    """Return how many samples are trained on in `rounds` epochs. Samples that do not fill a last step are not trained on.

    A step has `accumulate` forward passes, and a forward pass takes `batch` units of the plan on each of `world` ranks. The
    loader plans the packs of one window (a range of samples) at a time, and caches the plans of a few windows. If `rounds`
    epochs have more windows than the cache holds, return infinity, because counting the packs would be slow. In that case,
    the samples that do not fill a last step are only a small share of the run.
    """
    is_single = plan.packing.single
    if not is_single and rounds * plan.epoch_windows > KEPT_WINDOWS:
        return math.inf
    units = int(used_samples(plan, rounds)) if is_single else plan.end(0, rounds, 1 << 62)[0]
    passes = -(-(units // world) // batch)  # counted on the rank with the fewest units
    taken = min(units, passes // accumulate * accumulate * batch * world)
    if is_single or taken == 0:
        return taken
    starts = plan.at(np.arange(taken)).starts
    assert starts is not None
    return int(starts[-1])
