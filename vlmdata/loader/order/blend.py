"""The dataset of each position of a blend: exact, stateless, evenly spread.

Draw j of a dataset with rate r (its share of all samples) has the time (j + 1/2) / r; the blend is all draws in order of
their times. So among the first P positions each dataset has its share of P to within a few samples, for any P, and the
draws of a dataset have no gaps. Times are cut into spans of 4,096. Rates are fractions, so the draws before a span are
computed exactly without iterating. Within runs of 64 positions the datasets are shuffled, so that no rank sees only one of
two alternating datasets.
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
    """Scale weights to the sum 1, as exact decimals (0.1 is 1/10). Raises ValueError for negative or all-zero weights."""
    exact = [weight if isinstance(weight, Fraction) else Fraction(str(weight)) for weight in weights]
    if any(weight < 0 for weight in exact) or not sum(exact):
        raise InputError(f"weights must be 0 or more and not all 0: {list(map(float, exact))}")
    return [weight / sum(exact) for weight in exact]


@dataclass
class BlendOrder:
    """Stages of a blend: from position `starts[s]` on, `rates[s]` apply; `starts[0]` is 0.

    No run crosses a multiple of `period`, so that shares that are whole numbers there are exact. 0 means no period.
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
            raise InputError(f"stages must start at 0 and ascend: {self.starts}")
        self._before = [np.zeros(len(self.rates[0]), np.int64)]
        for stage in range(1, len(self.starts)):
            self._before.append(self.counts(self.starts[stage], stage - 1))

    def counts(self, position: int, stage: int | None = None) -> Ints:
        """Return the number of draws of each dataset before a position."""
        stage = self._stage_of(position) if stage is None else stage
        inside = position - self.starts[stage]
        start, datasets, _ = self._span(stage, self._span_of(stage, inside))
        early = np.bincount(datasets[: inside - start], minlength=len(self.rates[stage]))
        drawn = [_count(rate, self._span_of(stage, inside) * SPAN) for rate in self.rates[stage]]
        return self._before[stage] + np.array(drawn) + early

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Return the dataset of each position and the number of its draw. Positions must ascend."""
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
        """Return the span of time that contains a position. The first guess is off by at most one per dataset."""
        number = inside // SPAN
        while number and self._start(stage, number) > inside:
            number -= 1
        while self._start(stage, number + 1) <= inside:
            number += 1
        return number

    def _start(self, stage: int, span: int) -> int:
        return sum(_count(rate, span * SPAN) for rate in self.rates[stage])

    def _span(self, stage: int, number: int) -> tuple[int, Ints, Ints]:
        """Return the first position of a span, and for each of its positions the dataset and the number of the draw."""
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
    """Return how many draws of a dataset are before a time."""
    return max(0, ceil(rate * time - Fraction(1, 2)))
