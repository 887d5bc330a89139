"""Random choices for one row: a function of a seed, the row's key and the name of the choice, on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import xxhash

T = TypeVar("T")


def content(key: str) -> str:
    """Return a key without the number of identical rows, which rows of archives get after the first measurement."""
    return key.partition("_")[0]


def fraction(text: str) -> float:
    """Return a number in [0, 1) that is a function of a text."""
    return (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) >> 11) / 2**53


def in_order(text: str, some: Sequence[T]) -> list[T]:
    """Return the items in a random order that is a function of a text."""
    return [some[at] for at in sorted(range(len(some)), key=lambda at: fraction(f"{text} {at}"))]


class Draws:
    """The random numbers of a row. A choice with the same name gives the same number again."""

    def __init__(self, seed: int, key: str) -> None:
        self._start = f"{seed} {content(key)} "

    def number(self, name: str) -> float:
        """Return a number in [0, 1)."""
        return fraction(self._start + name)

    def between(self, name: str, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        return low + self.number(name) * (high - low)

    def one(self, name: str, some: Sequence[T]) -> T:
        """Return one of some items, which must not be empty."""
        return some[int(self.number(name) * len(some))]

    def order(self, name: str, some: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        return in_order(self._start + name, some)

    def by_weight(self, name: str, weights: Mapping[str, float]) -> list[str]:
        """Return the names with a weight above 0 in a random order, in which a greater weight is more often first.

        The first name is each one with a probability that is proportional to its weight.
        """
        keys = {one: self.number(f"{name} {one}") ** (1 / weight) for one, weight in weights.items() if weight > 0}
        return sorted(keys, key=lambda one: (-keys[one], one))
