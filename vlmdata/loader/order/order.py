"""The order of an epoch: a pure function of (seed, epoch, position), with random access and constant memory.

The rows of an index are cut into blocks of 64 adjacent rows; the cut starts at another row each epoch. A keyed permutation,
computed and not stored, puts the blocks in random order. 1,024 blocks in that order are a window. A window's blocks are
dealt to 64 lanes of 16; each lane's samples are fully permuted, and the window is read across the lanes, one sample of each
in turn. So adjacent samples in the order come from different shards, reading needs 1,024 runs of 64 samples at a time, and
ranks that take every W-th position (W a divisor of 64) share no blocks: with remote shards each byte is sent to one
machine. Datasets under 65,536 rows have smaller blocks, down to one row, which is a plain global shuffle.

All arithmetic is our own, on 64-bit integers, because numpy's generators may change between versions.
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
ORDER_VERSION = 1  # part of every state: another version means another order

Ints = NDArray[np.int64]
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def key(*parts: int) -> int:
    """Hash integers to one 64-bit key that depends on their order."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def noise(of: int, numbers: Ints) -> NDArray[np.uint64]:
    """Return a random 64-bit integer for each number, fixed by the key `of`."""
    return mixed(mixed(numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(of)) ^ np.uint64(of))


def permute(numbers: Ints, count: int, of: int, *, inverse: bool = False) -> Ints:
    """Apply a random permutation of range(count), fixed by the key `of`, to each number, in O(1) memory without a table.

    A Feistel network over the next even power of two, repeated until the result is in range. Source: Black and Rogaway 2002.
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
    """Return the distinct numbers, ascending; they must be close together. np.unique would import numpy.ma, for 10 ms."""
    low = int(numbers.min(initial=1 << 62))
    return [low + number for number in np.flatnonzero(np.bincount(numbers - low)).tolist()]


@dataclass
class Order:
    """The order of `rows` rows. With `shuffle` false, every epoch keeps the order of the rows."""

    rows: int
    seed: int = 0
    shuffle: bool = True
    _windows: "OrderedDict[tuple[int, int], _Window]" = field(default_factory=OrderedDict, repr=False, compare=False)

    def at(self, epoch: int, positions: Ints) -> Ints:
        """Return the rows at these positions of one epoch, each in [0, rows)."""
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
    """One epoch's rows cut into blocks: block b holds the rows [b * block - shift, (b + 1) * block - shift).

    `ragged` holds for the first and the last block its slot in the permuted order and the number of rows that it lacks.
    """

    rows: int
    block: int
    shift: int
    blocks: int
    of: int
    ragged: tuple[tuple[int, int], ...]

    def start(self, window: int) -> int:
        """Return the position at which a window starts; for the window past the last one, the number of rows."""
        slot = min(window * WINDOW_BLOCKS, self.blocks)
        return slot * self.block - sum(lack for at, lack in self.ragged if at < slot)

    def window_of(self, positions: Ints) -> Ints:
        """Return the window of each position. Ragged blocks move starts by less than two blocks, so a guess is off by one."""
        guess = positions // (WINDOW_BLOCKS * self.block)
        first, last = int(guess.min(initial=1 << 62)), int(guess.max(initial=0))
        starts = np.array([self.start(number) for number in range(first, last + 3)])
        return first + np.searchsorted(starts, positions, "right") - 1

    def window(self, number: int) -> "_Window":
        """Deal a window's blocks to the lanes."""
        slots = np.arange(number * WINDOW_BLOCKS, min((number + 1) * WINDOW_BLOCKS, self.blocks))
        firsts = permute(slots, self.blocks, self.of) * self.block - self.shift
        rows = (firsts[:, None] + np.arange(self.block)).ravel()
        rows = rows[(rows >= 0) & (rows < self.rows)]
        deep, longer = divmod(len(rows), LANES)
        lanes = np.full((LANES, deep + 1), -1)
        lanes[np.arange(deep + 1) < deep + (np.arange(LANES) < longer)[:, None]] = rows
        return _Window(lanes, np.zeros(LANES, bool), key(self.of, 1))


class _Window(NamedTuple):
    """A window's rows, (64 lanes, samples per lane). A lane is shuffled at first use. -1 ends a shorter lane."""

    lanes: Ints
    shuffled: NDArray[np.bool_]
    of: int

    def at(self, positions: Ints) -> Ints:
        """Return the rows at these positions of the window: position q is sample q // 64 of lane q % 64."""
        lanes = positions % LANES
        waiting = np.flatnonzero(np.bincount(lanes, minlength=LANES).astype(bool) & ~self.shuffled)
        if len(waiting):
            rows = self.lanes[waiting]
            chance = noise(self.of, rows)
            chance[rows < 0] = _MASK  # a lane's missing last sample stays last
            # noise is one to one, so there are no ties, and every sort gives this order
            self.lanes[waiting] = np.take_along_axis(rows, np.argsort(chance, axis=1), axis=1)
            self.shuffled[waiting] = True
        return self.lanes[lanes, positions // LANES]


@lru_cache(maxsize=64)
def _cut(rows: int, seed: int, epoch: int) -> _Cut:
    of = key(ORDER_VERSION, seed, epoch)
    block = max(1, min(BLOCK, rows // WINDOW_BLOCKS))
    shift = key(of, 2) % block
    blocks = -(-(rows + shift) // block)
    slots = permute(np.array([0, blocks - 1]), blocks, of, inverse=True).tolist()
    lacks = (shift, blocks * block - shift - rows)
    return _Cut(rows, block, shift, blocks, of, tuple(zip(slots, lacks, strict=True)))
