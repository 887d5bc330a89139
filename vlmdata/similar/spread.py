"""The same searches cut into independent tasks, for what one machine cannot hold or should not do alone.

`run` is any function like the builtin `map`, in order: a process pool's, or one that puts each task on Ray. A task is plain
data and opens the pieces itself (paths of .npy files that every machine reads, or arrays), keeps only what falls into its
bucket, and returns pairs of global numbers: rows counted over the pieces in order. Results are those of one machine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmdata.similar.blocks import Hashes, Table, move, tables
from vlmdata.similar.cosine import Int8, pairs_between
from vlmdata.similar.grams import mixed
from vlmdata.similar.hamming import equal_groups, pairs_in_table, star_edges
from vlmdata.similar.lsh import candidates_of
from vlmdata.similar.runs import Ids

Piece = str | NDArray
Run = Callable[[Callable, Iterable], Iterable]


@dataclass(frozen=True)
class Bucket:
    """One task: of `of` buckets of what the pieces hold, number `number`; `table` (or band) says by which key they go."""

    pieces: tuple[Piece, ...]
    number: int
    of: int
    table: Table | int | None = None
    distance: int = 0


def load(piece: Piece) -> NDArray:
    """Return the array of a piece; files are mapped, so that a task reads what it touches."""
    return np.load(piece, mmap_mode="r") if isinstance(piece, str) else piece


def hamming_edges(pieces: Sequence[Piece], distance: int, run: Run, *, buckets: int = 1) -> Iterator[Ids]:
    """Yield chunks of pairs that connect what `hamming.edges_within` connects, pieces being arrays (n,) of uint64.

    A task holds one bucket of the hashes: about N / buckets of them, a few times over. First the groups of equal hashes,
    then each (table, bucket); equal hashes are told by their first row in both.
    """
    held = tuple(pieces)
    yield from run(equal_in_bucket, [Bucket(held, number, buckets) for number in range(buckets)])
    count = sum(len(load(piece)) for piece in held)
    tasks = [Bucket(held, number, buckets, table, distance) for table in tables(count, distance) for number in range(buckets)]
    yield from run(near_in_bucket, tasks)


def equal_in_bucket(task: Bucket) -> Ids:
    """Return a star for each group of equal hashes that falls into the bucket."""
    rows, hashes = chosen(task, lambda part: mixed(part) % np.uint64(task.of) == task.number)
    _, groups, starts = equal_groups(hashes)
    return rows[star_edges(groups, starts)]


def near_in_bucket(task: Bucket) -> Ids:
    """Return the pairs that the task's table is the first to find among the hashes whose key falls into the bucket."""
    table = task.table
    assert isinstance(table, Table)
    low = np.uint64(64 - table.key_bits)
    rows, hashes = chosen(task, lambda part: mixed(move(part, table) >> low) % np.uint64(task.of) == task.number)
    distinct, groups, starts = equal_groups(hashes)
    found = [np.sort(rows[groups[starts[pairs]]], axis=1) for pairs in pairs_in_table(distinct, task.distance, table)]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def chosen(task: Bucket, is_chosen: Callable[[Hashes], NDArray[np.bool_]]) -> tuple[Ids, Hashes]:
    """Return the rows of all pieces that fall into the bucket, and their hashes."""
    rows, hashes, start = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], 0
    for piece in task.pieces:
        part = np.ascontiguousarray(load(piece), np.uint64)
        here = np.flatnonzero(is_chosen(part))
        rows.append(here + start)
        hashes.append(part[here])
        start += len(part)
    return np.concatenate(rows), np.concatenate(hashes)


def lsh_pairs(pieces: Sequence[Piece], run: Run, *, buckets: int = 1) -> Iterator[Ids]:
    """Yield chunks of the candidates that `lsh.candidates` finds, pieces being band keys (bands, n)."""
    held = tuple(pieces)
    bands = len(load(held[0]))
    yield from run(candidates_in_bucket, [Bucket(held, n, buckets, band) for band in range(bands) for n in range(buckets)])


def candidates_in_bucket(task: Bucket) -> Ids:
    """Return the candidates that the task's band is the first to bring together."""
    band = task.table
    assert isinstance(band, int)
    rows, keys, start = [], [], 0
    for piece in task.pieces:
        part = load(piece)
        here = np.flatnonzero(part[band] % np.uint64(task.of) == task.number)
        rows.append(here + start)
        keys.append(part[: band + 1, here])  # bands after this one have no say in it
        start += part.shape[1]
    row_of = np.concatenate(rows)
    found = [row_of[pairs] for pairs in candidates_of(np.concatenate(keys, axis=1), band)]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


@dataclass(frozen=True)
class PieceOfPairs:
    """One task of `cosine_pairs`: piece against piece, their rows counted from `starts`."""

    left: Piece
    right: Piece
    starts: tuple[int, int]
    cosine: float


def cosine_pairs(pieces: Sequence[Piece], cosine: float, run: Run) -> Iterator[Ids]:
    """Yield chunks of the pairs that `cosine.pairs_above` finds, pieces being int8 embeddings (n, D): a task holds two."""
    starts = np.cumsum([0] + [len(load(piece)) for piece in pieces]).tolist()
    tasks = [
        PieceOfPairs(pieces[i], pieces[j], (starts[i], starts[j]), cosine)
        for i in range(len(pieces))
        for j in range(i, len(pieces))
    ]
    yield from run(above_in_pieces, tasks)


def above_in_pieces(task: PieceOfPairs) -> Ids:
    left: Int8 = np.asarray(load(task.left))
    right: Int8 = np.asarray(load(task.right))
    found = [pairs + np.array(task.starts) for pairs in pairs_between(left, right, task.cosine)]
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *found])
    return pairs[pairs[:, 0] < pairs[:, 1]]
