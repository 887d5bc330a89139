"""Computes the order of an epoch: a pure function of (seed, epoch, position), with random access and constant memory.

- Blocks: the rows of an index are cut into blocks of 64 adjacent rows. The cut starts at a different row in each epoch.
- Windows: a keyed permutation, which is computed and not stored, puts the blocks in random order. 1,024 successive blocks in
  this order are a window.
- Lanes: the blocks of a window are dealt to 64 lanes of 16 blocks. The samples of each lane are shuffled. A window is read
  across its lanes, one sample of each lane in turn.

Adjacent samples in the order therefore come from different shards, and one window is read from 1,024 places in the tars. If
each of W ranks takes every W-th position and W divides 64, no two ranks read the same block. Each byte of a remote shard is
then sent to only one machine. Datasets of less than 65,536 rows have smaller blocks. With blocks of one row, the order is a
plain global shuffle.

The arithmetic on 64-bit integers is implemented here, because numpy's generators may change between versions.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmdata.splitmix import mixed

BLOCK = 64
WINDOW_BLOCKS = 1024
LANES = 64
ORDER_VERSION = 1  # part of every state, because another version gives another order

Ints = NDArray[np.int64]
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def key(*parts: int) -> int:
    """Return a 64-bit hash of a sequence of integers."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def noise(of: int, numbers: Ints) -> NDArray[np.uint64]:
    """Return a random 64-bit integer for each number. It depends only on the number and the key `of`."""
    return mixed(mixed(numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(of)) ^ np.uint64(of))


def permute(numbers: Ints, count: int, of: int, *, inverse: bool = False) -> Ints:
    """Return `numbers` mapped by a random permutation of range(count), or by its inverse.

    The key `of` determines the permutation, so no table is needed. It is a Feistel network over the next even power of two. A
    result that is not below `count` is mapped again until it is. Source: Black and Rogaway 2002.
    """
    half = max(1, (max(count - 1, 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    secrets = [np.uint64(key(of, number)) for number in range(6)]
    result = numbers.astype(np.uint64)
    walking = np.arange(len(result))
    while len(walking):
        left, right = result[walking] >> shift, result[walking] & mask
        for secret in reversed(secrets) if inverse else secrets:
            if inverse:
                left, right = right ^ (mixed(left + secret) & mask), left
            else:
                left, right = right, left ^ (mixed(right + secret) & mask)
        result[walking] = (left << shift) | right
        walking = walking[result[walking] >= np.uint64(count)]
    return result.astype(np.int64)


def distinct(numbers: Ints) -> list[int]:
    """Return the distinct numbers in ascending order.

    The numbers must be close together, because memory grows with their range. np.unique would import numpy.ma, which takes 10
    ms.
    """
    low = int(numbers.min(initial=1 << 62))
    return [low + number for number in np.flatnonzero(np.bincount(numbers - low)).tolist()]


@dataclass
class Order:
    """The order of the rows of a dataset in each epoch. With shuffle=False, every epoch has the order of the index."""

    rows: int
    seed: int = 0
    shuffle: bool = True
    _windows: "OrderedDict[tuple[int, int], _Window]" = field(default_factory=OrderedDict, repr=False, compare=False)

    def at(self, epoch: int, positions: Ints) -> Ints:
        """Return the row at each of these positions of an epoch. Positions and rows are in [0, `rows`)."""
        if not self.shuffle:
            return positions
        cut = _cut(self.rows, self.seed, epoch)
        windows = cut.window_of(positions)
        result = np.empty_like(positions)
        for number in distinct(windows):
            here = windows == number
            window = self._windows.get((epoch, number))
            if window is None:
                window = self._windows[epoch, number] = cut.window(number)
                while len(self._windows) > 2:
                    self._windows.popitem(last=False)
            result[here] = window.at(positions[here] - cut.start(number))
        return result


@dataclass(frozen=True)
class _Cut:
    """The rows of one epoch, cut into blocks: block b holds the rows [b * block - shift, (b + 1) * block - shift).

    The first and the last block may lack rows. `ragged` holds (slot in the permuted order, number of missing rows) for each of
    these two blocks. `of` is the key of the permutation.
    """

    rows: int
    block: int
    shift: int
    blocks: int
    of: int
    ragged: tuple[tuple[int, int], ...]

    def start(self, window: int) -> int:
        """Return the position at which a window starts. If `window` is past the last window, return the number of all rows."""
        slot = min(window * WINDOW_BLOCKS, self.blocks)
        return slot * self.block - sum(lack for at, lack in self.ragged if at < slot)

    def window_of(self, positions: Ints) -> Ints:
        """Return the window of each position.

        The first guess assumes that no block lacks rows. Windows start less than two blocks earlier than it assumes, so the
        guess is too low by at most one window.
        """
        guess = positions // (WINDOW_BLOCKS * self.block)
        first, last = int(guess.min(initial=1 << 62)), int(guess.max(initial=0))
        starts = np.array([self.start(number) for number in range(first, last + 3)])
        return first + np.searchsorted(starts, positions, "right") - 1

    def window(self, number: int) -> "_Window":
        """Return the window with this number: the rows of its blocks, divided among the 64 lanes."""
        slots = np.arange(number * WINDOW_BLOCKS, min((number + 1) * WINDOW_BLOCKS, self.blocks))
        firsts = permute(slots, self.blocks, self.of) * self.block - self.shift
        rows = (firsts[:, None] + np.arange(self.block)).ravel()
        rows = rows[(rows >= 0) & (rows < self.rows)]
        deep, longer = divmod(len(rows), LANES)
        lanes = np.full((LANES, deep + 1), -1)
        lanes[np.arange(deep + 1) < deep + (np.arange(LANES) < longer)[:, None]] = rows
        return _Window(lanes, np.zeros(LANES, bool), key(self.of, 1))


class _Window(NamedTuple):
    """The rows of a window: (64 lanes, samples per lane).

    A lane is shuffled when it is first used. A shorter lane ends with -1.
    """

    lanes: Ints
    shuffled: NDArray[np.bool_]
    of: int

    def at(self, positions: Ints) -> Ints:
        """Return the rows at these positions of the window. Lanes take turns: position q is sample q // 64 of lane q % 64."""
        lanes = positions % LANES
        waiting = np.flatnonzero(np.bincount(lanes, minlength=LANES).astype(bool) & ~self.shuffled)
        if len(waiting):
            rows = self.lanes[waiting]
            chance = noise(self.of, rows)
            chance[rows < 0] = _MASK  # -1, which fills up a shorter lane, stays last
            # noise is one-to-one, so there are no ties, and every sorting algorithm gives this order
            self.lanes[waiting] = np.take_along_axis(rows, np.argsort(chance, axis=1), axis=1)
            self.shuffled[waiting] = True
        return self.lanes[lanes, positions // LANES]


@lru_cache(maxsize=64)
def _cut(rows: int, seed: int, epoch: int) -> _Cut:
    """Return how the rows of an epoch are cut into blocks."""
    of = key(ORDER_VERSION, seed, epoch)
    block = max(1, min(BLOCK, rows // WINDOW_BLOCKS))
    shift = key(of, 2) % block
    blocks = -(-(rows + shift) // block)
    slots = permute(np.array([0, blocks - 1]), blocks, of, inverse=True).tolist()
    lacks = (shift, blocks * block - shift - rows)
    return _Cut(rows, block, shift, blocks, of, tuple(zip(slots, lacks, strict=True)))
