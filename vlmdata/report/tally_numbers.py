"""Counts any number of values in bounded memory."""

from __future__ import annotations

import numpy as np

DROPPED_BITS = 12  # mantissa bits of a float32 that are dropped; 11 of 23 stay, so integers up to 4096 are exact
SIGN = np.uint32(0x80000000)
LOW = np.uint32((1 << DROPPED_BITS) - 1)
LARGEST = float(np.uint32(0x7F7FF000).view(np.float32))  # about 3.4e38; larger values are counted as this value


class NumberTally:
    """Counts values, rounded to 12 significant binary digits (0.02%), with at most a million counters."""

    def __init__(self) -> None:
        self.keys = np.empty(0, np.uint32)
        self.counts = np.empty(0, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count the finite values, and ignore infinity and NaN."""
        keys, counts = np.unique(_keys(values[np.isfinite(values)]), return_counts=True)
        self._merge(keys, counts.astype(np.int64))

    def _merge(self, keys: np.ndarray, counts: np.ndarray) -> None:
        both = np.concatenate([self.keys, keys])
        self.keys, places = np.unique(both, return_inverse=True)
        self.counts = np.bincount(places, np.concatenate([self.counts, counts]), len(self.keys)).astype(np.int64)

    @property
    def total(self) -> int:
        """The number of counted values."""
        return int(self.counts.sum())

    def values(self) -> np.ndarray:
        """Return the distinct rounded values, ascending: float64, aligned with `counts`."""
        ordered = self.keys << DROPPED_BITS
        bits = np.where(ordered & SIGN, ordered ^ SIGN, ~(ordered | LOW))
        return bits.view(np.float32).astype(np.float64)

    def quantile(self, share: float) -> float:
        """Return the quantile of all values at `share`, from 0 to 1. The median is at 0.5."""
        place = np.searchsorted(np.cumsum(self.counts), share * self.total)
        return float(self.values()[min(int(place), len(self.keys) - 1)])


def merged(tallies: list[NumberTally]) -> NumberTally:
    """Return one tally with the counts of all tallies."""
    whole = NumberTally()
    for tally in tallies:
        whole._merge(tally.keys, tally.counts)
    return whole


def _keys(values: np.ndarray) -> np.ndarray:
    """Return integers that sort like the values.

    An integer holds the leading bits of its value as float32, rounded. The bits of a negative value are inverted.
    """
    single = np.clip(values, -LARGEST, LARGEST).astype(np.float32) + np.float32(0)  # minus zero becomes zero
    half = np.uint32(1 << (DROPPED_BITS - 1))
    bits = (single.view(np.uint32) + half) & ~LOW
    return np.where(bits & SIGN, ~bits, bits | SIGN) >> DROPPED_BITS
