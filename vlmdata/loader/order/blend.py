"""Chooses the dataset of each position of a blend. The choice is exact, needs no state, and spreads each dataset evenly.

The rate r of a dataset is its share of all samples. Draw j of the dataset has the time (j + 1/2) / r, and the blend is the
sequence of all draws in the order of their times. Therefore, the first P positions hold r * P samples of the dataset, with
an error of a few samples. No draw of a dataset is left out.

Times are cut into spans of 4,096. Rates are fractions, so the number of draws before a span is computed exactly and without
iterating. The positions are cut into runs of 64, and the datasets of the 64 draws in a run are shuffled. Without this
shuffling, a rank could see only one of two alternating datasets.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

import numpy as np

from vlmdata.errors import InputError
from vlmdata.loader.order.order import Ints, key, noise

SPAN = 4096
RUN = 64


def as_rates(weights: Sequence[float | Fraction]) -> list[Fraction]:
    """Return the weights as exact fractions with the sum 1. For example, 0.1 is read as 1/10.

    Raises ValueError if a weight is negative or all are 0.
    """
    exact = [weight if isinstance(weight, Fraction) else Fraction(str(weight)) for weight in weights]
    if any(weight < 0 for weight in exact) or not sum(exact):
        raise InputError(f"weights must be at least 0 and not all 0, but they are {list(map(float, exact))}")
    return [weight / sum(exact) for weight in exact]


@dataclass
class BlendOrder:
    """The order of a blend whose rates may change. Stage s starts at position `starts[s]` and has the rates `rates[s]`.

    `starts[0]` is 0. Positions are cut into periods of `period` positions, and shuffling keeps each draw within its period. So
    a dataset with an integer number of draws per period has exactly this number in each period. With period=0, there are no
    periods.
    """

    starts: list[int]
    rates: list[list[Fraction]]
    seed: int = 0
    shuffle: bool = True
    period: int = 0
    _before: list[Ints] = field(default_factory=list, repr=False)
    _spans: OrderedDict[tuple[int, int], tuple[int, Ints, Ints]] = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        if self.starts[0] != 0 or sorted(set(self.starts)) != self.starts:
            raise InputError(f"the starts of stages must ascend from 0, but they are {self.starts}")
        self._before = [np.zeros(len(self.rates[0]), np.int64)]
        for stage in range(1, len(self.starts)):
            self._before.append(self.counts(self.starts[stage], stage - 1))

    def counts(self, position: int, stage: int | None = None) -> Ints:
        """Return how many of the positions before `position` belong to each dataset.

        `stage` is the stage whose rates apply up to `position`, by default the stage that contains `position`.
        """
        stage = self._stage_of(position) if stage is None else stage
        inside = position - self.starts[stage]
        start, datasets, _ = self._span(stage, self._span_of(stage, inside))
        early = np.bincount(datasets[: inside - start], minlength=len(self.rates[stage]))
        drawn = [_count(rate, self._span_of(stage, inside) * SPAN) for rate in self.rates[stage]]
        return self._before[stage] + np.array(drawn) + early

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Return two arrays: the dataset of each position, and the number of earlier draws from that dataset.

        The positions must ascend.
        """
        if len(self.rates[0]) == 1:
            return np.zeros_like(positions), positions
        datasets, draws = np.empty_like(positions), np.empty_like(positions)
        done = 0
        while done < len(positions):
            stage = self._stage_of(int(positions[done]))
            inside = int(positions[done]) - self.starts[stage]
            start, found, numbers = self._span(stage, self._span_of(stage, inside))
            end = self.starts[stage] + start + len(found)
            if stage + 1 < len(self.starts):
                end = min(end, self.starts[stage + 1])
            upto = int(np.searchsorted(positions, end))
            places = positions[done:upto] - self.starts[stage] - start
            datasets[done:upto] = found[places]
            draws[done:upto] = numbers[places]
            done = upto
        return datasets, draws

    def _stage_of(self, position: int) -> int:
        return int(np.searchsorted(self.starts, position, "right")) - 1

    def _span_of(self, stage: int, inside: int) -> int:
        """Return the number of the span that contains a position. `inside` is the position minus the start of the stage.

        The start of span s differs from `s * SPAN` by at most half a position per dataset, so the search is short.
        """
        number = inside // SPAN
        while number and self._start(stage, number) > inside:
            number -= 1
        while self._start(stage, number + 1) <= inside:
            number += 1
        return number

    def _start(self, stage: int, span: int) -> int:
        return sum(_count(rate, span * SPAN) for rate in self.rates[stage])

    def _span(self, stage: int, number: int) -> tuple[int, Ints, Ints]:
        """Return a span: its first position in the stage, and for each position the dataset and the draw number.

        The draw number is the number of earlier draws from the same dataset, in all stages.
        """
        known = self._spans.get((stage, number))
        if known is not None:
            return known
        rates = self.rates[stage]
        firsts = np.array([_count(rate, number * SPAN) for rate in rates])
        sizes = np.array([_count(rate, (number + 1) * SPAN) for rate in rates]) - firsts
        times = [
            float((int(first) + Fraction(1, 2)) / rate - number * SPAN) + np.arange(size) / float(rate)
            for rate, first, size in zip(rates, firsts, sizes, strict=True)
            if rate
        ]
        owners = np.repeat(np.arange(len(rates)), sizes)
        datasets = owners[np.argsort(np.concatenate(times), kind="stable")]
        if self.shuffle:
            places = int(firsts.sum()) + np.arange(len(datasets))
            chance = noise(key(self.seed, stage), places)
            periods = places // self.period if self.period else np.zeros_like(places)
            datasets = datasets[np.lexsort((chance, places // RUN, periods))]
        draws = np.empty_like(datasets)
        for dataset, (first, size) in enumerate(zip((firsts + self._before[stage]).tolist(), sizes.tolist(), strict=True)):
            draws[datasets == dataset] = np.arange(first, first + size)
        self._spans[stage, number] = result = (int(firsts.sum()), datasets, draws)
        while len(self._spans) > 4:
            self._spans.popitem(last=False)
        return result


def _count(rate: Fraction, time: int) -> int:
    """Return how many draws from a dataset with this rate are before `time`. Draw j is at time (j + 1/2) / rate."""
    return max(0, ceil(rate * time - Fraction(1, 2)))
