"""Fills packs from the histogram of lengths. Samples of one length are interchangeable, so only their number matters.

The use of a histogram is from Krell et al. 2021, "Efficient sequence packing without cross-contamination". Best-fit decreasing
is fast, but it puts samples of similar length together, which are often of one kind, and leaves gaps that no sample fits.
`match` draws most samples of a pack at random and then searches for two lengths that complete the pack. Its packs are therefore
mixed and have nearly equal cost.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmdata.loader.order.order import Ints, key, noise

ROUNDS = 40
IDLE_ROUNDS = 4  # `match` stops after this number of consecutive rounds that complete almost no pack
FEWEST = 64  # if fewer samples are left, best-fit decreasing packs them


class Slots(NamedTuple):
    """The length of each sample and the number of its pack, as arrays in the same order. There are `packs` packs."""

    lengths: Ints
    owners: Ints
    packs: int


def best_fit(histogram: Ints, size: int) -> Slots:
    """Fill packs of `size` tokens by best-fit decreasing. `histogram[n]` is the number of samples of n tokens, `0 < n <= size`.

    Long samples are placed first. A sample goes into the fullest open pack that has room for it, or into a new pack. Samples of
    one length are placed together: each step takes all packs with the same room and fills them with these samples.
    """
    by_room: dict[int, list[Ints]] = {}
    rooms = 0  # bit r is set if a pack with room r is open
    lengths, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    opened = 0
    for length in np.flatnonzero(histogram)[::-1].tolist():
        left = int(histogram[length])
        while left:
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                free = np.concatenate(by_room.pop(room))
                rooms ^= 1 << room
            else:
                room = size
                free = np.arange(opened, opened - (-left // (size // length)))
                opened += len(free)
            each = room // length
            full, rest = divmod(left, each)
            full = min(full, len(free))
            counts = np.full(full, each)
            if full < len(free) and rest and full * each + rest == left:
                counts = np.append(counts, rest)
            owners.append(np.repeat(free[: len(counts)], counts))
            lengths.append(np.full(int(counts.sum()), length))
            left -= int(counts.sum())
            changed = [(room - each * length, free[:full]), (room - rest * length, free[full : len(counts)])]
            for now, some in [*changed, (room, free[len(counts) :])]:
                if len(some) and now:
                    by_room.setdefault(now, []).append(some)
                    rooms |= 1 << now
    return Slots(np.concatenate(lengths), np.concatenate(owners), opened)


def match(histogram: Ints, size: int, seed: int) -> Slots:
    """Fill packs of `size` tokens with random samples, and choose the last one or two samples of each pack so that they fit.

    Packs are filled in rounds. A pack that cannot be filled to within 1/256 of its size is dissolved, and later rounds can draw
    its samples again. After the last round, `best_fit` packs the remaining samples.

    Let s be the average number of samples that fill a pack, for example 5.2. The rounds alternate between s rounded down (packs
    of five) and s rounded up (packs of six). Samples for packs of five are drawn from all samples. Samples for packs of six are
    drawn from the shortest samples only, because six samples of any length rarely fit.
    """
    left = histogram.copy()
    lengths, owners, packs, idle = [], [], 0, 0
    for number in range(ROUNDS):
        count = int(left.sum())
        if count < FEWEST:
            break
        each = size * count / int(left @ np.arange(len(left)))  # samples per pack: 5.2 means packs of five and some of six
        members, pool, packs_wanted = max(2, math.floor(each)), left, count
        if number % 2 and each % 1 > 0.01:
            members = math.ceil(each)
            pool, packs_wanted = _smallest(left, size / members), int(count * (each % 1) / each)
        base = _draw(pool, members - 2, packs_wanted, key(seed, number))
        base = base[base.sum(axis=1) < size]
        left -= np.bincount(base.ravel(), minlength=len(left))
        ends = _end_packs(size - base.sum(axis=1), left, size, ascending=number % 2 == 0)
        ended = ends[:, 0] > 0
        left += np.bincount(base[~ended].ravel(), minlength=len(left))
        done = np.hstack([base, ends])[ended]
        lengths.append(done[done > 0])
        owners.append((packs + np.repeat(np.arange(len(done)), done.shape[1]))[done.ravel() > 0])
        packs += len(done)
        idle = idle + 1 if len(done) <= len(ended) / 100 else 0
        if idle == IDLE_ROUNDS:
            break
    rest = best_fit(left, size)
    return Slots(np.concatenate([*lengths, rest.lengths]), np.concatenate([*owners, rest.owners + packs]), packs + rest.packs)


def _smallest(left: Ints, mean: float) -> Ints:
    """Return a histogram of the shortest samples in the histogram `left`.

    As many samples are taken as have a mean length of at most `mean`. Of each length, all samples are taken or none.
    """
    lengths = np.arange(len(left))
    counts, sums = np.cumsum(left), np.cumsum(left * lengths)
    return np.where(sums <= counts * mean, left, 0)


def _draw(left: Ints, most: int, wanted: int, of: int) -> Ints:
    """Draw `most` random samples for each of `wanted` packs, and return their lengths: (packs, most).

    The samples are drawn from the histogram `left`, and `of` is the random key. Each pack will get two more samples. If the
    `wanted` packs would then use more than half of all samples, fewer packs are drawn.
    """
    pool = np.repeat(np.arange(len(left)), left)
    packs = max(1, min(wanted, len(pool) // (most + 2) // 2))
    if len(pool) < packs * most:
        return np.zeros((0, most), np.int64)
    chosen = np.argsort(noise(of, np.arange(len(pool))), kind="stable")[: packs * most]
    return pool[chosen].reshape(packs, most)


def _end_packs(rooms: Ints, left: Ints, size: int, *, ascending: bool) -> Ints:
    """Choose one or two samples to complete each pack, and return their lengths: (packs, 2). Unused entries are 0.

    A pack that no samples complete has two zeros. `rooms` holds the number of free tokens of each pack. `left` is the histogram
    of the remaining samples; the chosen samples are removed from it. If `ascending` is true, pairs of a short and a long sample
    are chosen first, otherwise pairs of nearly equal length.
    """
    ends = np.zeros((len(rooms), 2), np.int64)
    slack = min(16, max(1, size // 256))
    least = int(np.argmax(left > 0))
    order = np.argsort(rooms, kind="stable")
    values, starts, counts = np.unique(rooms[order], return_index=True, return_counts=True)
    for value, start, count in zip(values.tolist(), starts.tolist(), counts.tolist(), strict=True):
        waiting = order[start : start + count]
        for room in range(value, max(0, value - slack), -1):
            if room >= 2 * least:
                pairs = _pairs(left, room, least, len(waiting), ascending)
                ends[waiting[: len(pairs)]] = pairs
                waiting = waiting[len(pairs) :]
            if left[room]:
                single = min(int(left[room]), len(waiting))
                ends[waiting[:single], 0] = room
                left[room] -= single
                waiting = waiting[single:]
            if not len(waiting):
                break
    return ends


def _pairs(left: Ints, room: int, least: int, most: int, ascending: bool) -> NDArray[np.int64]:
    """Remove up to `most` pairs of samples from `left`, and return their lengths: (pairs, 2).

    The lengths of a pair sum to `room`, and each is at least `least`.
    """
    smaller = np.arange(max(least, room - len(left) + 1), room // 2 + 1)
    there = np.minimum(left[smaller], left[room - smaller])
    if len(there) and room % 2 == 0:
        there[-1] = left[room // 2] // 2
    found = np.flatnonzero(there)
    if not len(found):
        return np.zeros((0, 2), np.int64)
    if not ascending:
        found = found[::-1]
    taken = np.diff(np.minimum(np.cumsum(there[found]), most), prepend=0)
    first = np.repeat(smaller[found], taken)
    np.subtract.at(left, first, 1)
    np.subtract.at(left, room - first, 1)
    return np.stack([first, room - first], axis=1)
