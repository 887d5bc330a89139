"""Checks that a stream yields every sample once, for any number of ranks and workers and any interruptions.

The check walks the schedule and reads no tar.
"""

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlmdata.loader.order.order import Ints
from vlmdata.loader.packed import PackedPlan
from vlmdata.loader.schedule import Schedule, StepLayout

PORTION = 1 << 16


@dataclass(frozen=True)
class Audit:
    """The size of a finished audit.

    `positions` is the number of positions in the audited epoch; a stream yields one sample at each position. `samples` is the
    number of samples in the datasets. `trials` is the number of trials with random ranks, workers, batch sizes and
    interruptions. `trial_positions` is the number of positions that these trials walked in total.
    """

    positions: int
    samples: int
    trials: int
    trial_positions: int


def audit(plan: Schedule, epoch: int, trials: int, seed: int) -> Audit:
    """Walk an epoch of the schedule and return the size of the audit. Raise AssertionError if a sample is lost or repeated.

    A single dataset must yield each row exactly once. In a blend, a dataset of r rows from which the epoch draws n samples must
    yield each row at least n // r - 1 and at most ceil(n / r) + 1 times. The beginning of the epoch is also walked `trials`
    times, each time with other random ranks, workers, batch sizes and interruptions, which depend on `seed`. The audit needs
    two bytes of memory per row.
    """
    first = plan.epoch_start(epoch)
    rows = sum(order.rows for order in plan.orders)
    seen = [np.zeros(order.rows, np.uint16) for order in plan.orders]
    for start in range(first, first + plan.epoch_size, PORTION):
        picks = plan.at(np.arange(start, min(start + PORTION, first + plan.epoch_size)))
        for number, counts in enumerate(seen):
            np.add.at(counts, picks.rows[picks.datasets == number], 1)
    for number, (counts, order) in enumerate(zip(seen, plan.orders, strict=True)):
        before, after = (int(plan.blend.counts(at)[number]) for at in (first, first + plan.epoch_size))
        least, most = (after - before) // order.rows - 1, -(-(after - before) // order.rows) + 1
        if len(plan.orders) == 1:
            least = most = 1
        assert counts.sum() == after - before, f"dataset {number} yields {counts.sum()} samples instead of {after - before}"
        assert counts.min() >= max(0, least) and counts.max() <= most, f"dataset {number}: a row is missing or occurs too often"
    walked = sum(_trial(plan, random.Random(f"{seed} {number}"), first) for number in range(trials))
    return Audit(plan.epoch_size, rows, trials, walked)


def audit_packs(plan: PackedPlan, epoch: int) -> None:
    """Pack the samples of an epoch, one window at a time. Raise AssertionError if a sample is in two packs or in none.

    A window is a group of successive samples that are packed together. Samples that packing drops do not count as missing.
    """
    for window in range(plan.epoch_windows):
        packs = plan.packs(epoch, window)
        counts = np.bincount(packs.members)
        assert counts.max(initial=0) <= 1, f"window {window}: a sample is in two packs"
        size = (window + 1) * plan.plan.epoch_size // plan.epoch_windows - window * plan.plan.epoch_size // plan.epoch_windows
        assert len(packs.members) + packs.dropped == size, f"window {window}: a sample is in no pack"


def _trial(plan: Schedule, chance: random.Random, first: int) -> int:
    """Simulate interrupted runs over at most the first 20,000 positions of an epoch. Return the number of these positions.

    Each run has a random layout of ranks and workers, and starts where the previous run was interrupted. `first` is the first
    position of the epoch. Raise AssertionError if a position is missing or repeated.
    """
    end = first + min(plan.epoch_size, 20_000)
    position, dealt = first, []
    while position < end:
        layout = StepLayout(chance.randint(1, 64), 0, chance.randint(1, 9), 0, chance.randint(1, 5))
        steps = min(layout.steps(position, end, drop=False), chance.randint(1, 40))
        each = [(rank, worker) for rank in range(layout.world_size) for worker in range(layout.num_workers)]
        dealt += [_leg(replace(layout, rank=rank, worker=worker), position, end, steps) for rank, worker in each]
        position = min(position + steps * layout.stride, end)
    together = np.sort(np.concatenate(dealt))
    assert np.array_equal(together[together < end], np.arange(first, end)), "a position is missing or occurs twice"
    return end - first


def _leg(layout: StepLayout, start: int, end: int, steps: int) -> Ints:
    """Return the positions that one worker yields if its rank starts at `start` and is interrupted after `steps` steps.

    The epoch ends at `end`. If the epoch's last step is not full, positions after `end` fill it.
    """
    parts: list[Any] = []
    for numbers, positions, _ in layout.deal(start, lambda _: (end, True), 2048, drop=False):
        parts.append(positions[numbers < steps].ravel())
        if numbers[-1] >= steps:
            break
    return np.concatenate([np.zeros(0, np.int64), *parts])
