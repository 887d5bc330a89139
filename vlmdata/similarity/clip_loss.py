"""The s-CLIPLoss of pairs of embeddings: their cosine, less what the pair gets from being similar to everything.

M pairs in a batch, N pairs in all, D width. The logits of a batch are computed in blocks and never held as a whole.

Source: Wang et al. 2024 (2405.19547), and `cal_new_clip_score` in baselines/vas2.py of ypwang61/negCLIPLoss_NormSim. Like
there, the sums contain the pair itself, and all sums of a pair are averaged over several random divisions into batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.cosine import single_threaded
from vlmdata.similarity.distributed import load, starts_of
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.units import Units, units_of
from vlmdata.splitmix import mixed
from vlmdata.step import MapTasks, RecipeError, StoredArray

ROWS, COLUMNS = 512, 2048  # logits that are computed at a time: 4 MiB
GATHERED = 4096  # vectors that are scaled at a time

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """A task: the pairs of one batch. Pair m is row `place[m]` of the pieces `images[piece[m]]` and `texts[piece[m]]`."""

    images: tuple[StoredArray, ...]
    texts: tuple[StoredArray, ...]
    piece: Ids
    place: Ids
    temperature: float


class LogSums:
    """The logarithms of running sums of exponentials, one sum for each of M rows or columns of logits."""

    def __init__(self, count: int):
        self._top = np.full(count, -np.inf)
        self._sum = np.zeros(count)

    def add(self, start: int, logits: NDArray[np.float32], axis: int) -> None:
        """Add a block of logits (R, C), summed over `axis`, to the sums from `start` on."""
        here = slice(start, start + logits.shape[1 - axis])
        highest = logits.max(axis=axis, keepdims=True)
        added = np.exp(logits - highest).sum(axis=axis)
        found = highest.ravel().astype(np.float64)
        top = np.maximum(self._top[here], found)
        self._sum[here] = self._sum[here] * np.exp(self._top[here] - top) + added * np.exp(found - top)
        self._top[here] = top

    def values(self) -> Doubles:
        """Return the logarithm of each sum: (M,)."""
        return self._top + np.log(self._sum)


@single_threaded()
def batch_scores(images: Units, texts: Units, temperature: float) -> Doubles:
    """Return the s-CLIPLoss of each pair of a batch: (M, D), (M, D) -> (M,).

    It is cos(i, i) - temperature / 2 * (logsumexp_j cos(i, j) / temperature + logsumexp_j cos(j, i) / temperature), where the
    first sum runs over the texts of the batch and the second over its images. So it is the temperature times the mean
    logarithm of the two probabilities with which CLIP finds the pair in the batch: at most 0, and higher for better pairs.
    """
    over_texts, over_images = LogSums(len(images)), LogSums(len(images))
    scaled = images / np.float32(temperature)
    block = np.empty((ROWS, COLUMNS), np.float32)  # reused, because allocating takes longer than a product
    for top in range(0, len(images), ROWS):
        left = scaled[top : top + ROWS]
        for side in range(0, len(texts), COLUMNS):
            right = texts[side : side + COLUMNS]
            logits = np.matmul(left, right.T, out=block[: len(left), : len(right)])
            over_texts.add(top, logits, axis=1)
            over_images.add(side, logits, axis=0)
    cosines = np.einsum("md,md->m", images, texts, dtype=np.float64)
    return cosines - temperature / 2 * (over_texts.values() + over_images.values())


def scores_of(task: Batch) -> Doubles:
    """Return the s-CLIPLoss of each pair of a task, in its order: (M,)."""
    images, texts = (_gathered(pieces, task.piece, task.place) for pieces in (task.images, task.texts))
    return batch_scores(images, texts, task.temperature)


def _gathered(pieces: Sequence[StoredArray], piece: Ids, place: Ids) -> Units:
    """Return rows of pieces as unit vectors: (M,), (M,) -> (M, D). Every piece holds at least one of the rows."""
    found: Units = np.empty((0, 0), np.float32)
    for number, one in enumerate(pieces):
        here, array = np.flatnonzero(piece == number), load(one)
        if not number:
            found = np.empty((len(piece), array.shape[1]), np.float32)
        if array.shape[1] != found.shape[1]:
            raise RecipeError(
                f"clip_loss: some embeddings have the width {found.shape[1]}, others {array.shape[1]}. Correct the step that "
                "writes them"
            )
        for start in range(0, len(here), GATHERED):
            some = here[start : start + GATHERED]
            found[some] = units_of(array[place[some]])
    return found


def divisions(hashes: NDArray[np.uint64], size: int, repeats: int, seed: int) -> Iterator[Ids]:
    """Yield the pairs of each batch, in the batch's order, for `repeats` random divisions of N pairs into batches.

    A division sorts the pairs by a hash of `hashes` (N,), the seed and the division's number, and cuts them into the fewest
    batches of at most `size` pairs. Their sizes differ by at most one, because a small last batch would give its pairs smaller
    sums. If all pairs fit into one batch, every division is the same, so there is only one.
    """
    count = -(-len(hashes) // size)
    for number in range(repeats if count > 1 else min(count, 1)):
        start = mixed(mixed(np.full(1, seed % 2**64, np.uint64)) + np.uint64(number + 1))
        order = np.lexsort((hashes, mixed(hashes + start)))
        yield from np.array_split(order, count)


def clip_losses(
    images: Sequence[StoredArray],
    texts: Sequence[StoredArray],
    hashes: NDArray[np.uint64],
    run: MapTasks,
    *,
    temperature: float,
    size: int,
    repeats: int,
    seed: int,
) -> Doubles:
    """Return the s-CLIPLoss of each of N pairs, averaged over random divisions into batches: (N,).

    `images` and `texts` are pieces (n, D) of the same lengths, and `hashes` (N,) has a number for each pair that depends on
    nothing else. `run` applies a function to each task, as `map` does. The result does not depend on the order of the pairs or
    on the pieces.
    """
    starts = starts_of(images)
    batches = list(divisions(hashes, size, repeats, seed))

    def tasks() -> Iterator[Batch]:
        for batch in batches:
            number = np.searchsorted(starts, batch, side="right") - 1
            used, piece = np.unique(number, return_inverse=True)
            held = [tuple(pieces[one] for one in used) for pieces in (images, texts)]
            yield Batch(held[0], held[1], piece, batch - starts[number], temperature)

    total, times = np.zeros(len(hashes)), np.zeros(len(hashes))
    for batch, found in zip(batches, run(scores_of, tasks()), strict=True):
        total[batch] += found
        times[batch] += 1
    return total / np.maximum(times, 1)
