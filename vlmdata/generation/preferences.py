"""Pairs of a better and a worse text for preference training, and the balance of their lengths.

Source: RLAIF-V, Yu et al. 2024.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

MOST_TEXTS = 200  # that make pairs: 19,900; ten thousand texts would make 50 million
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

    A text is in one pair only, as long as there are enough; equal texts count once. Of more than MOST_TEXTS texts, the best
    one, the worst one and others that are drawn in the same way are used.
    """
    different = list({one.text: one for one in reversed(texts)}.values())[::-1]
    if len(different) > MOST_TEXTS:
        ends = [max(different, key=_score), min(different, key=_score)]
        different = [*ends, *sorted((one for one in different if one not in ends), key=lambda one: _hash(seed, one.text))]
    pairs = [
        Pair(*sorted(two, key=lambda one: -one.score))
        for two in itertools.combinations(different[:MOST_TEXTS], 2)
        if abs(two[0].score - two[1].score) >= min_gap
    ]
    pairs.sort(key=lambda pair: _hash(seed, pair.chosen.text, pair.rejected.text))
    found: list[Pair] = []
    used: set[str] = set()
    for pair in pairs:
        texts_of_pair = {pair.chosen.text, pair.rejected.text}
        if len(found) < most and not used & texts_of_pair:
            found.append(pair)
            used |= texts_of_pair
    left = most - len(found)
    return [*found, *([pair for pair in pairs if pair not in found][:left] if left else [])]


def _score(one: ScoredText) -> float:
    return one.score


def _hash(*parts: str) -> int:
    return xxhash.xxh3_64_intdigest("\x1f".join(parts).encode("utf-8", "surrogatepass"))


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
