"""Run the searches as independent tasks, for data too large for one machine.

`run` is a function that applies a function to each task and returns the results in order, as the builtin `map` does. It may be
the `map` of a process pool, or the engine's function that runs each task on a worker. A task is plain data, which names pieces
and a bucket. A piece is an array, or the path or address of an .npy file that every machine can read. Items are split into
buckets by their keys, so items with equal keys are in one bucket. The function of a task opens the pieces, selects the items of
the bucket, and returns pairs of global numbers. The global number of an item is its position if the items of all pieces are
numbered in order. Tasks only read, so a task can be repeated. The results equal the results of a search on one machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.cosine import Int8, pairs_between, squared_norms
from vlmdata.similarity.grams import Grams
from vlmdata.similarity.hamming import equal_groups, pairs_in_table
from vlmdata.similarity.lsh import candidates_of
from vlmdata.similarity.minhash import jaccard
from vlmdata.similarity.pigeonhole_blocks import Hashes, Table, move, tables
from vlmdata.similarity.runs import Ids
from vlmdata.splitmix import mixed
from vlmdata.step import MapTasks, StoredArray

IN_A_TASK = 4_000_000  # approximate number of hashes or keys in a task
PAIRS = 50_000  # pairs compared in a task


@dataclass(frozen=True)
class Bucket:
    """A task that searches bucket `number` of `of` buckets.

    Items of the pieces go into buckets by their keys. `table` says which keys: those of a pigeonhole table, or those of the LSH
    band with this number. `chosen` holds for each piece the places of the items to use. If `chosen` is empty, all items are
    used.
    """

    pieces: tuple[StoredArray, ...]
    number: int
    of: int
    table: Table | int | None = None
    distance: int = 0
    chosen: tuple[StoredArray, ...] = ()


def load(piece: StoredArray) -> NDArray:
    """Return the array of a piece. Local files are memory-mapped, so that a task reads only the pages that it uses."""
    if not isinstance(piece, str):
        return piece
    if "://" in piece:
        import fsspec

        with fsspec.open(piece, "rb") as file:
            return np.load(io.BytesIO(file.read()))
    return np.load(piece, mmap_mode="r")


def buckets_for(count: int) -> int:
    """Return the number of buckets for `count` items."""
    return -(-count // IN_A_TASK) or 1


def starts_of(pieces: Sequence[StoredArray]) -> Ids:
    """Return the global number of the first item of each of the P pieces, and then the number of all items: (P + 1,)."""
    return np.cumsum([0] + [len(load(piece)) for piece in pieces])


def near_pairs(pieces: Sequence[StoredArray], distance: int, run: MapTasks, *, buckets: int = 1) -> Iterator[Ids]:
    """Yield chunks (M, 2) of the pairs of unequal hashes within the distance.

    If several items have the same hash, only the first of them is in the pairs.
    """
    held = tuple(pieces)
    count = int(starts_of(held)[-1])
    tasks = [Bucket(held, number, buckets, table, distance) for table in tables(count, distance) for number in range(buckets)]
    yield from run(near_in_bucket, tasks)


def near_in_bucket(task: Bucket) -> Ids:
    """Return the near pairs of items in the task's bucket: (M, 2). A pair is left out if an earlier table also finds it."""
    table = task.table
    assert isinstance(table, Table)
    low = np.uint64(64 - table.key_bits)
    rows, hashes = chosen(task, lambda part: mixed(move(part, table) >> low) % np.uint64(task.of) == task.number)
    distinct, groups, starts = equal_groups(hashes)
    found = [np.sort(rows[groups[starts[pairs]]], axis=1) for pairs in pairs_in_table(distinct, task.distance, table)]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def chosen(task: Bucket, is_chosen: Callable[[Hashes], NDArray[np.bool_]]) -> tuple[Ids, Hashes]:
    """Return the global numbers and the hashes of the chosen items. `is_chosen` returns one bool for each hash that it gets."""
    rows, hashes, start = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], 0
    for piece in task.pieces:
        part = np.ascontiguousarray(load(piece), np.uint64)
        here = np.flatnonzero(is_chosen(part))
        rows.append(here + start)
        hashes.append(part[here])
        start += len(part)
    return np.concatenate(rows), np.concatenate(hashes)


def lsh_pairs(
    pieces: Sequence[StoredArray], run: MapTasks, *, buckets: int = 1, chosen: Sequence[StoredArray] = ()
) -> Iterator[Ids]:
    """Yield chunks (M, 2) of the candidate pairs that `lsh.candidates` finds. A piece holds band keys (bands, n).

    `chosen` holds for each piece the places of the texts to compare. If `chosen` is empty, all texts are compared.
    """
    held, places = tuple(pieces), tuple(chosen)
    bands = len(load(held[0]))
    tasks = [Bucket(held, n, buckets, band, chosen=places) for band in range(bands) for n in range(buckets)]
    yield from run(candidates_in_bucket, tasks)


def candidates_in_bucket(task: Bucket) -> Ids:
    """Return the candidate pairs of the task's band and bucket, except pairs that an earlier band finds: (M, 2)."""
    band = task.table
    assert isinstance(band, int)
    rows, keys, start = [], [], 0
    for number, piece in enumerate(task.pieces):
        part = load(piece)
        some = load(task.chosen[number]) if task.chosen else np.arange(part.shape[1])
        here = some[part[band][some] % np.uint64(task.of) == task.number]
        rows.append(here + start)
        keys.append(part[: band + 1][:, here])  # later bands do not matter
        start += part.shape[1]
    row_of = np.concatenate(rows)
    found = [row_of[pairs] for pairs in candidates_of(np.concatenate(keys, axis=1), band)]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


@dataclass(frozen=True)
class PieceOfPairs:
    """A task of `cosine_pairs`: compare the pieces `left` and `right`, whose first rows have the global numbers `starts`."""

    left: StoredArray
    right: StoredArray
    starts: tuple[int, int]
    cosine: float


def cosine_pairs(pieces: Sequence[StoredArray], cosine: float, run: MapTasks) -> Iterator[Ids]:
    """Yield chunks (M, 2) of the pairs that `cosine.pairs_above` finds.

    A piece holds int8 embeddings (n, D), and a task compares two pieces.
    """
    starts = starts_of(pieces).tolist()
    tasks = (
        PieceOfPairs(pieces[i], pieces[j], (starts[i], starts[j]), cosine)
        for i in range(len(pieces))
        for j in range(i, len(pieces))
        if starts[i + 1] > starts[i] and starts[j + 1] > starts[j]
    )
    yield from run(above_in_pieces, tasks)


def above_in_pieces(task: PieceOfPairs) -> Ids:
    """Return the pairs of rows, one from each piece, whose cosine is above `task.cosine`, as global numbers i < j: (M, 2)."""
    left: Int8 = np.asarray(load(task.left))
    right: Int8 = np.asarray(load(task.right))
    found = [pairs + np.array(task.starts) for pairs in pairs_between(left, right, task.cosine)]
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *found])
    return pairs[pairs[:, 0] < pairs[:, 1]]


@dataclass(frozen=True)
class Compared:
    """A task that compares `pairs` (M, 2) of items.

    `pieces` holds the pieces that contain the items, and `starts` holds the global number of each piece's first item.
    """

    pieces: tuple[tuple[StoredArray, ...], ...]
    starts: Ids
    pairs: Ids

    def where(self) -> tuple[Ids, Ids]:
        """Return two arrays (2M,): for each item, the number of its piece in `pieces`, and its place in that piece.

        The two items of a pair follow each other.
        """
        items = self.pairs.ravel()
        piece = np.searchsorted(self.starts, items, side="right") - 1
        return piece, items - self.starts[piece]


def compared(
    function: Callable[[Compared], NDArray], pieces: Sequence[tuple[StoredArray, ...]], starts: Ids, pairs: Ids, run: MapTasks
) -> NDArray[np.float64]:
    """Return the number that `function` computes for each pair of items: (M, 2) -> (M,).

    Each task holds some of the pairs, in ascending order, and the pieces that contain their items.
    """
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    values = np.empty(len(pairs))

    def tasks() -> Iterator[Compared]:
        for begin in range(0, len(order), PAIRS):
            some = pairs[order[begin : begin + PAIRS]]
            used = np.unique(np.searchsorted(starts, some.ravel(), side="right") - 1)
            yield Compared(tuple(pieces[number] for number in used), starts[used], some)

    begin = 0
    for found in run(function, tasks()):
        values[order[begin : begin + len(found)]] = found
        begin += len(found)
    return values


def cosines_of(task: Compared) -> NDArray[np.float64]:
    """Return the cosine of each pair of int8 embeddings in a task: (M,). A pair with an embedding of zeros has the cosine 0."""
    piece, place = task.where()
    vectors = np.empty((len(place), load(task.pieces[0][0]).shape[1]), np.int8)
    for number, (one,) in enumerate(task.pieces):
        here = piece == number
        vectors[here] = load(one)[place[here]]
    left, right = vectors[::2], vectors[1::2]
    dots = np.einsum("nd,nd->n", left, right, dtype=np.int64)
    return dots / np.sqrt(np.maximum(squared_norms(left) * squared_norms(right), 1))


def jaccards(
    pieces: Sequence[tuple[StoredArray, ...]], starts: Ids, pairs: Ids, grams: Callable[[Sequence[str]], Grams], run: MapTasks
) -> NDArray[np.float64]:
    """Return the Jaccard similarity of pairs of texts: (M, 2) -> (M,). A piece is (bytes, ends), as `packed` returns it."""
    return compared(partial(jaccards_of, grams), pieces, starts, pairs, run)


def jaccards_of(grams: Callable[[Sequence[str]], Grams], task: Compared) -> NDArray[np.float64]:
    """Return the Jaccard similarity, 0..1, of the gram sets of each pair of texts in a task: (M,).

    A piece of the task is (bytes, ends), as `packed` returns it. Two texts without grams have the similarity 0.
    """
    piece, place = task.where()
    texts: dict[tuple[int, int], int] = {}
    numbers = [texts.setdefault(key, len(texts)) for key in zip(piece.tolist(), place.tolist(), strict=True)]
    opened = [(load(data), load(ends)) for data, ends in task.pieces]
    words = []
    for number, at in texts:
        data, ends = opened[number]
        words.append(bytes(data[ends[at - 1] if at else 0 : ends[at]]).decode())
    return jaccard(np.array(numbers, np.int64).reshape(-1, 2), words, grams)


def packed(texts: Sequence[str]) -> tuple[NDArray[np.uint8], Ids]:
    """Return texts as a piece: their concatenated UTF-8, and the offset where each text ends."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(one) for one in encoded], dtype=np.int64)
