"""Computes the bars of a histogram from counted values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vlmdata.report.tally_numbers import NumberTally
from vlmdata.report.threshold_lines import Line

BARS = 40
TAIL = 0.002  # share of all values at each end that the outermost bars collect
RESOLUTION = 2.0**-11  # smallest relative difference of values that a tally distinguishes
SPREAD = 25.0  # the scale is logarithmic if its upper end is more than this many times the median


@dataclass(frozen=True)
class Bins:
    """The N bars of a histogram between N + 1 ascending `edges`. The first and last bar also count values outside the edges."""

    edges: np.ndarray
    is_log: bool
    is_whole: bool  # all values are integers

    def count(self, tally: NumberTally) -> np.ndarray:
        """Return the number of values in each bar: (N,)."""
        slack = np.minimum(np.diff(self.edges, append=self.edges[-1] + 1), 1) / 100  # values are rounded but edges are not
        place = np.searchsorted(self.edges - slack, tally.values(), side="right") - 1
        return np.bincount(np.clip(place, 0, len(self.edges) - 2), tally.counts, len(self.edges) - 1).astype(np.int64)

    def position(self, value: float) -> float:
        """Return the position of a value on the scale, from 0 (left end) to 1 (right end)."""
        low, high, at = float(self.edges[0]), float(self.edges[-1]), value
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, low))
        return (at - low) / (high - low)

    def center(self, value: float) -> float:
        """Return the position of a value's label: the middle of the value's bar if each integer has its own bar.

        Otherwise, it is the position of the value.
        """
        return self.position(value + 0.5 if self.has_a_bar_each else value)

    @property
    def has_a_bar_each(self) -> bool:
        """Whether each integer has its own bar."""
        return self.is_whole and not self.is_log and float(self.edges[1] - self.edges[0]) == 1

    def holds(self, line: Line) -> bool:
        """Return whether a threshold line is between the first and the last edge."""
        return bool(self.edges[0] <= edge(line, self.is_whole) <= self.edges[-1])

    def ticks(self) -> list[float]:
        """Return three to six round values to label the axis."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.is_log:
            powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
            steps = (1,) if high / low > 2e3 else (1, 3) if high / low > 50 else (1, 2, 5)
            return [p * m for p in powers for m in steps if low <= p * m <= high]
        step = nice((high - low) / 5)
        step = max(1.0, round(step)) if self.is_whole else step
        high -= 1e-6 if self.has_a_bar_each else 0
        return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def edge(line: Line, is_whole: bool) -> float:
    """Return the value at which a line is drawn. For integers, it is the edge between bars of kept and rejected values."""
    if not is_whole:
        return line.at
    return float(math.ceil(line.at) if line.sign in "≥<" else math.floor(line.at) + 1)


def make(tally: NumberTally, lines: list[Line]) -> Bins:
    """Return bars for all values of a score. The scale also covers threshold lines near the values."""
    values = tally.values()
    is_whole = bool((values == np.round(values)).all())
    low, high, middle = tally.quantile(TAIL), tally.quantile(1 - TAIL), tally.quantile(0.5)
    wide = max(high - low, 1.0 if is_whole else 1e-9, RESOLUTION * max(abs(low), abs(high)))
    near = [at for line in lines if low - wide / 2 <= (at := edge(line, is_whole)) <= high + wide / 2]
    low, high = min([low, *near]), max([high, *near])
    if low > 0 and high > SPREAD * middle:
        return Bins(np.geomspace(low, high * 1.0001, BARS + 1), True, is_whole)
    width = nice(max(high - low, wide) / BARS)
    width = max(1.0, float(round(width))) if is_whole else width
    anchor = near[0] if near else 0.0  # an edge is on the line, so that no bar crosses it
    start = anchor + math.floor((low - anchor) / width + 1e-9) * width
    count = max(1, math.floor((high - start) / width + 1e-9) + 1)
    return Bins(start + width * np.arange(count + 1), False, is_whole)


def nice(width: float) -> float:
    """Return `width` rounded up to 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= width * (1 - 1e-9))


def short(value: float) -> str:
    """Return a number in a few characters: 0.28, 1,200, 35k, 1.2M, 4.6e+18."""
    size = abs(value)
    if size >= 999_500_000:
        return f"{value:.3g}"
    if size >= 999_500:
        return f"{value / 1e6:.3g}M"
    if size >= 10_000:
        return f"{value / 1e3:.3g}k"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
