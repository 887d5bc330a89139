"""The sample at each position of a stream: a pure function of indexes, seed and weights. Opens no tar."""

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
    """Samples as arrays: dataset, row in its index, epoch, and a random number fixed by the sample and the epoch.

    With packs, pack p holds the samples from `starts[p]` to `starts[p + 1]`.
    """

    datasets: Ints
    rows: Ints
    epochs: Ints
    seeds: Ints
    starts: Ints | None = None


@dataclass(frozen=True)
class Schedule:
    """The samples at positions 0, 1, 2, … through all epochs. An epoch of the blend has `epoch_size` positions."""

    datasets: list[Dataset]
    orders: list[Order]
    blend: BlendOrder
    epoch_size: int
    seed: int

    def at(self, positions: Ints) -> Picks:
        """Return the samples at these ascending positions."""
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
        """Return (end, True) for the group of `epochs` epochs that contains `position`: see PackedPlan."""
        span = epochs * self.epoch_size
        return (position // span + 1) * span, True

    def epoch_start(self, epoch: int) -> int:
        """Return the position at which an epoch starts."""
        return epoch * self.epoch_size

    def hint(self, position: int) -> list[int] | None:
        """Return what a state needs besides the position: nothing. See PackedPlan."""
        return None

    def use_hint(self, hint: list[int]) -> None:
        """Raise InputError: only a packed stream has a hint."""
        raise InputError("the state is of a packed stream, and this one is not packed")

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
    """Blend datasets by weight. An epoch of one dataset is all its rows.

    by="samples": a weight is a share of the samples; an epoch has as many positions as all datasets have rows. by="epochs":
    a weight is how often an epoch of the blend repeats each row. by="tokens": a weight is a share of the tokens; `tokens` is
    the mean length of a sample of each dataset. `later` maps a position (samples over all ranks) to the weights from there
    on. Raises ValueError for impossible weights.
    """
    rows = [len(dataset.index) for dataset in datasets]
    if by == "tokens" and tokens is None:
        raise InputError('weights by="tokens" need lengths: give packing=Packing(...)')

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
    """How positions are dealt: each step gives `batch_size` to each rank; a rank's workers take its steps in turn."""

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
        """Return the number of steps per rank from `start` to `end`; `drop` leaves out a partial last step."""
        return (end - start) // self.stride if drop else -(-(end - start) // self.stride)

    def deal(self, start: int, end: End, most: int, *, drop: bool) -> Iterator[tuple[Ints, Ints, int]]:
        """Yield this worker's steps in portions: step numbers (s,), positions (s, batch_size), and the end, 2**62 if unknown.

        A rank takes every world_size-th position, so that it stays on the same lanes of the order. The first portion is
        small, so that the first batch comes soon; portions grow up to `most` positions. `end(upto)` returns (end, True) or
        (a bound past `upto`, False).
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
    """Return a hash of JSON values, 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(json.dumps(facts).encode())
