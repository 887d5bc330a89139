"""Packs samples into sequences by their lengths, as a pure function.

Samples of one length are interchangeable. `fill.py` chooses the lengths that share a pack. Then the samples of each length are
dealt to the packs in the order of their positions. So the packs, read one after the other, give the samples in nearly the order
of their positions.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmdata.errors import InputError
from vlmdata.loader.order.fill import best_fit, match
from vlmdata.loader.order.order import Ints, key, noise

Overlong = Literal["alone", "drop"]
GOOD_ENOUGH = 0.004  # share of padding above which best-fit decreasing is also tried
MIXING_COSTS = 0.01  # share of additional packs that is accepted in return for mixed packs
COST_GROUP = 64  # number of adjacent packs of similar cost, so that up to 64 ranks have equal work in a step


@dataclass(frozen=True)
class Packs:
    """Packs of samples: pack p holds the samples `members[starts[p]:starts[p + 1]]`.

    A member is the index of a sample in the lengths that were passed to `pack`. No sample is split. `tokens` is the sum of the
    packed lengths, in which an overlong sample counts as the size of a pack. `capacity` is the number of tokens that the packs
    can hold, and `dropped` the number of samples that were left out.
    """

    starts: Ints
    members: Ints
    tokens: int
    capacity: int
    dropped: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def padding(self) -> float:
        """The share of the packs' capacity that is padding, in [0, 1)."""
        return 1 - self.tokens / self.capacity if self.capacity else 0.0


def pack(lengths: Ints, size: int, *, seed: int = 0, overlong: Overlong = "alone") -> Packs:
    """Return packs of `size` tokens that hold samples of these lengths. Each length must be at least 1.

    With overlong="alone", a sample longer than `size` gets its own pack, and the collate function must truncate its text. With
    overlong="drop", such a sample is left out and counted.

    The cost of a pack is the sum of its squared lengths, which is the cost of attention. Packs of nearly equal cost form groups
    of 64. The groups are in random order, and so are the packs in each group. So adjacent packs usually have nearly equal cost,
    and ranks that process them at the same time wait little for each other.
    """
    if size < 1 or (len(lengths) and lengths.min() < 1):
        least = lengths.min(initial=1)
        raise InputError(
            f"lengths and the size of a pack must be at least 1. The least length is {least}, and the size is {size}"
        )
    usable = np.flatnonzero(lengths <= size) if overlong == "drop" else np.arange(len(lengths))
    clipped = np.minimum(lengths[usable], size)
    histogram = np.bincount(clipped, minlength=size + 1)
    slots = match(histogram, size, seed)
    if 1 - clipped.sum() / (slots.packs * size or 1) > GOOD_ENOUGH:
        tight = best_fit(histogram, size)
        slots = tight if tight.packs * (1 + MIXING_COSTS) < slots.packs else slots
    count = slots.packs
    cost = np.bincount(slots.owners, slots.lengths.astype(np.float64) ** 2, minlength=count)
    rank = _shuffle_alike(cost, seed)[slots.owners]
    items = np.argsort(clipped, kind="stable")
    owner = np.empty(len(items), np.int64)
    owner[items] = rank[np.lexsort((rank, slots.lengths))]
    members = usable[np.argsort(owner, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    return Packs(starts, members, int(clipped.sum()), count * size, len(lengths) - len(usable))


def each_alone(lengths: Ints, size: int, *, overlong: Overlong = "alone") -> Packs:
    """Return packs of one sample each, in the order of the samples. `overlong` is as in `pack`."""
    members = np.flatnonzero(lengths <= size) if overlong == "drop" else np.arange(len(lengths))
    tokens = int(np.minimum(lengths[members], size).sum())
    return Packs(np.arange(len(members) + 1), members, tokens, len(members) * size, len(lengths) - len(members))


def _shuffle_alike(cost: np.ndarray, seed: int) -> Ints:
    """Return the place of each pack in the final order.

    Packs of similar cost form groups. The groups are in random order, and so are the packs in each group.
    """
    count = len(cost)
    by_cost = np.lexsort((noise(key(seed, 1), np.arange(count)), cost))
    group = np.arange(count) // COST_GROUP
    group_chance = noise(key(seed, 2), group)
    group_chance[group == count // COST_GROUP] = np.iinfo(np.uint64).max  # a partial last group stays last
    order = by_cost[np.lexsort((noise(key(seed, 3), by_cost), group, group_chance))]
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    return rank
