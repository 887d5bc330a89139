"""Computes the sample at each position of a stream, as a pure function of indexes, seed and weights, without opening a tar."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import xxhash

from vlmdata.errors import InputError
from vlmdata.loader.index.open_dataset import Dataset
from vlmdata.loader.order.blend import BlendOrder, as_rates
from vlmdata.loader.order.order import ORDER_VERSION, Ints, Order, distinct, key, noise

By = Literal["samples", "epochs", "tokens"]


End = Callable[[int], tuple[int, bool]]


class Picks(NamedTuple):
    """Samples as arrays: number of the dataset, row in its index, epoch of the dataset, and random number.

    The random number of a sample depends only on the stream's seed, the sample and the epoch. With packs, pack p holds the
    samples from `starts[p]` to `starts[p + 1]`. Without packs, `starts` is None.
    """

    datasets: Ints
    rows: Ints
    epochs: Ints
    seeds: Ints
    starts: Ints | None = None


@dataclass(frozen=True)
class Schedule:
    """Gives the samples at the positions 0, 1, 2, … of all epochs. An epoch has `epoch_size` positions."""

    datasets: list[Dataset]
    orders: list[Order]
    blend: BlendOrder
    epoch_size: int
    seed: int

    def at(self, positions: Ints) -> Picks:
        """Return the samples at these positions, which must ascend."""
        datasets, draws = self.blend.at(positions)
        rows, epochs, seeds = np.empty_like(draws), np.empty_like(draws), np.empty_like(draws)
        for dataset in distinct(datasets) if len(self.orders) > 1 else [0]:
            order = self.orders[dataset]
            mine = np.flatnonzero(datasets == dataset)
            epochs[mine] = draws[mine] // order.rows
            for epoch in distinct(epochs[mine]):
                here = mine[epochs[mine] == epoch]
                rows[here] = order.at(epoch, draws[here] - epoch * order.rows)
                chance = noise(key(self.seed, dataset, epoch, 2), rows[here])
                seeds[here] = (chance >> np.uint64(1)).astype(np.int64)
        return Picks(datasets, rows, epochs, seeds)

    def end(self, position: int, epochs: int, upto: int) -> tuple[int, bool]:
        """Return (end, True), where `end` is the position at which an iteration that contains `position` ends.

        `end` is the start of the next epoch whose number is a multiple of `epochs`. True says that `end` is exact. Only
        `PackedPlan` uses `upto`.
        """
        span = epochs * self.epoch_size
        return (position // span + 1) * span, True

    def epoch_start(self, epoch: int) -> int:
        """Return the position at which an epoch starts."""
        return epoch * self.epoch_size

    def epoch_of(self, position: int) -> int:
        """Return the number of the epoch that contains a position."""
        return position // self.epoch_size

    def hint(self, position: int) -> list[int] | None:
        """Return None, because a saved state of this schedule needs only the position. PackedPlan needs more."""
        return None

    def use_hint(self, hint: list[int]) -> None:
        """Raise InputError, because only a packed stream has a hint."""
        raise InputError("the state belongs to a packed stream, but this stream is not packed. Use the same packing")

    @cached_property
    def index_digest(self) -> str:
        """A hash of the tars, their samples and the samples' order in the tars."""
        return digest([dataset.index.digest for dataset in self.datasets])

    @cached_property
    def order_digest(self) -> str:
        """A hash of the order: seed, shuffling, weights and ORDER_VERSION."""
        rates = [[str(rate) for rate in stage] for stage in self.blend.rates]
        return digest([ORDER_VERSION, self.seed, self.orders[0].shuffle, self.blend.starts, rates])


def make_plan(
    datasets: Sequence[Dataset],
    weights: Sequence[float],
    *,
    by: By = "samples",
    later: Mapping[int, Sequence[float]] | None = None,
    seed: int = 0,
    shuffle: bool = True,
    tokens: Sequence[Fraction] | None = None,
) -> Schedule:
    """Return the schedule of one dataset, or of several datasets that are blended by weight.

    An epoch of a single dataset has all its rows. In a blend, each dataset has a weight, and `by` says what it means:
    - by="samples": the dataset's share of the samples. An epoch has as many positions as all datasets together have rows.
    - by="tokens": the dataset's share of the tokens. `tokens` holds the mean length of a sample in each dataset. An epoch has
      as many positions as with by="samples".
    - by="epochs": how often an epoch of the blend repeats each row of the dataset.

    `later` maps a position, counted in samples over all ranks, to the weights that apply from this position. Raises ValueError
    for impossible weights.
    """
    rows = [len(dataset.index) for dataset in datasets]
    if by == "tokens" and tokens is None:
        raise InputError('weights with by="tokens" need the lengths of the samples. Pass packing=Packing(...)')

    def shares(values: Sequence[float]) -> list[Fraction]:
        exact = [Fraction(str(value)) for value in values]
        if by == "epochs":
            exact = [Fraction(round(value * count)) for value, count in zip(exact, rows, strict=True)]
        if by == "tokens" and tokens is not None:
            exact = [value / mean for value, mean in zip(exact, tokens, strict=True)]
        return as_rates(exact)

    size = sum(rows)
    if by == "epochs":
        size = sum(round(Fraction(str(weight)) * count) for weight, count in zip(weights, rows, strict=True))
    stages = {0: shares(weights), **{start: shares(values) for start, values in (later or {}).items()}}
    starts = sorted(stages)
    blend = BlendOrder(starts, [stages[start] for start in starts], key(seed, 1), shuffle, size if by == "epochs" else 0)
    orders = [Order(count, key(seed, number), shuffle) for number, count in enumerate(rows)]
    return Schedule(list(datasets), orders, blend, size, seed)


@dataclass(frozen=True)
class StepLayout:
    """How positions are dealt to ranks and workers.

    Each step gives `batch_size` positions to each rank. The workers of a rank take its steps in turn.
    """

    batch_size: int = 1
    rank: int = 0
    world_size: int = 1
    worker: int = 0
    num_workers: int = 1

    @property
    def stride(self) -> int:
        """The number of positions in one step over all ranks."""
        return self.batch_size * self.world_size

    def steps(self, start: int, end: int, *, drop: bool) -> int:
        """Return the number of steps of each rank between two positions. With `drop`, a partial last step does not count."""
        return (end - start) // self.stride if drop else -(-(end - start) // self.stride)

    def deal(self, start: int, end: End, most: int, *, drop: bool) -> Iterator[tuple[Ints, Ints, int]]:
        """Yield this worker's steps in portions: (step numbers (S,), positions (S, batch_size), end position).

        S is the number of steps in the portion. The end position is 2**62 if it is unknown. A rank takes every `world_size`-th
        position, so ranks read different blocks of the tars if `world_size` divides 64 (see order/order.py). The first portion
        is small, so that the first batch is ready soon. Later portions grow to at most `most` positions. `drop` is as in
        `steps`. `end(upto)` returns (end, True) or, if the end is unknown, (bound, False) with `upto < bound <= end`.
        """
        portion, first = max(1, 32 // self.batch_size), self.worker
        while True:
            upto = start + (first + portion * self.num_workers) * self.stride
            bound, is_end = end(upto)
            steps = self.steps(start, bound, drop=drop or not is_end)
            numbers = np.arange(first, min(steps, first + portion * self.num_workers), self.num_workers)
            if not len(numbers):
                return
            own = start + self.rank + numbers[:, None] * self.stride
            yield numbers, own + np.arange(self.batch_size) * self.world_size, bound if is_end else 1 << 62
            first = int(numbers[-1]) + self.num_workers
            portion = max(1, min(portion * 4, most // self.batch_size))


def digest(facts: object) -> str:
    """Return a hash of values that JSON can represent, as 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(json.dumps(facts).encode())
