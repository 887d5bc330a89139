"""Pairs of a better and a worse text for preference training, and the balance of their lengths.

Source: RLAIF-V, Yu et al. 2024.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

SHARES = [n / 50 for n in range(50, -1, -1)]  # that are tried: 1, 0.98 ... 0


class ScoredText(NamedTuple):
    """A text with its score. A higher score is better."""

    text: str
    score: float


class Pair(NamedTuple):
    """The better and the worse one of two texts."""

    chosen: ScoredText
    rejected: ScoredText


def drawn_pairs(texts: Sequence[ScoredText], min_gap: float, most: int, seed: str) -> list[Pair]:
    """Return at most `most` pairs of texts whose scores differ by at least `min_gap`, drawn by a hash of `seed`.

    A text is in one pair only, as long as there are enough; equal texts count once.
    """
    different = list({one.text: one for one in reversed(texts)}.values())[::-1]
    pairs = [
        Pair(*sorted(two, key=lambda one: -one.score))
        for two in itertools.combinations(different, 2)
        if abs(two[0].score - two[1].score) >= min_gap
    ]
    pairs.sort(
        key=lambda pair: xxhash.xxh3_64_intdigest(
            "\x1f".join([seed, pair.chosen.text, pair.rejected.text]).encode("utf-8", "surrogatepass")
        )
    )
    found: list[Pair] = []
    for again in (False, True):
        for pair in pairs:
            used = {one.text for other in found for one in other}
            if len(found) < most and pair not in found and (again or not used & {pair.chosen.text, pair.rejected.text}):
                found.append(pair)
    return found


def most_shorter(chosen: np.ndarray, rejected: np.ndarray) -> float:
    """Return by which share of the rejected text's length the chosen text may be shorter, 0 to 1.

    `chosen` and `rejected` are the lengths of the texts of each pair, float64 (N,). With the result, the mean lengths of the
    pairs that stay are as near to each other as possible; of equally good values, it is the greatest.
    """
    shorter = shorter_by(chosen, rejected)
    best, found = np.inf, 1.0
    for share in SHARES:
        kept = shorter <= share
        if kept.any():
            difference = abs(chosen[kept].mean() - rejected[kept].mean())
            if difference < best:
                best, found = difference, share
    return found


def shorter_by(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Return how much shorter each chosen text is, as a share of the length of the rejected one: float64 (N,)."""
    return np.round((rejected - chosen) / np.maximum(rejected, 1), 9)
