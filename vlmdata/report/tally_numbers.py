"""Counting numbers without keeping them: any amount of values in a few thousand counters."""

from __future__ import annotations

import numpy as np

DROPPED_BITS = 12  # of a float32: 11 of its 23 bits of mantissa stay, so whole numbers up to 4096 are counted exactly
SIGN = np.uint32(0x80000000)
LOW = np.uint32((1 << DROPPED_BITS) - 1)
LARGEST = float(np.uint32(0x7F7FF000).view(np.float32))  # 3.4e38: what is beyond counts as this


class NumberTally:
    """How often each value came, values rounded to 12 significant binary digits (0.02%). At most a million counters."""

    def __init__(self) -> None:
        self.keys = np.empty(0, np.uint32)
        self.counts = np.empty(0, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values; what is not finite is left out."""
        keys, counts = np.unique(_keys(values[np.isfinite(values)]), return_counts=True)
        self._merge(keys, counts.astype(np.int64))

    def _merge(self, keys: np.ndarray, counts: np.ndarray) -> None:
        both = np.concatenate([self.keys, keys])
        self.keys, places = np.unique(both, return_inverse=True)
        self.counts = np.bincount(places, np.concatenate([self.counts, counts]), len(self.keys)).astype(np.int64)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def values(self) -> np.ndarray:
        """Return the distinct rounded values, rising: float64, aligned with `counts`."""
        ordered = self.keys << DROPPED_BITS
        bits = np.where(ordered & SIGN, ordered ^ SIGN, ~(ordered | LOW))
        return bits.view(np.float32).astype(np.float64)

    def quantile(self, share: float) -> float:
        """Return the value below which `share` of all values lie."""
        place = np.searchsorted(np.cumsum(self.counts), share * self.total)
        return float(self.values()[min(int(place), len(self.keys) - 1)])


def merged(tallies: list[NumberTally]) -> NumberTally:
    """Return the sum of tallies."""
    whole = NumberTally()
    for tally in tallies:
        whole._merge(tally.keys, tally.counts)
    return whole


def _keys(values: np.ndarray) -> np.ndarray:
    """Return integers in the order of the values: the leading bits of float32, rounded, negative ones turned around."""
    single = np.clip(values, -LARGEST, LARGEST).astype(np.float32) + np.float32(0)  # minus zero becomes zero
    half = np.uint32(1 << (DROPPED_BITS - 1))
    bits = (single.view(np.uint32) + half) & ~LOW
    return np.where(bits & SIGN, ~bits, bits | SIGN) >> DROPPED_BITS
