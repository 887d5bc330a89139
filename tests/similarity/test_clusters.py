import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vlmdata.similarity.clusters import best_first, best_of_groups, components, representatives_of_rows

CHAIN = np.array([[0, 1], [1, 2], [2, 3]])


def test_components_join_a_whole_chain_and_representatives_only_direct_pairs() -> None:
    rank = np.array([1, 0, 2, 3])  # row 1 is the best
    assert components(5, [CHAIN]).tolist() == [0, 0, 0, 0, 4]
    assert representatives_of_rows(rank, [CHAIN]).tolist() == [1, 1, 1, 3]


def test_the_representative_of_a_row_is_the_best_kept_row_paired_with_it() -> None:
    rank = np.array([2, 1, 0, 3])
    assert representatives_of_rows(rank, [np.array([[0, 3], [1, 3], [0, 1]])]).tolist() == [1, 1, 2, 1]


def greedy(rank: np.ndarray, pairs: np.ndarray) -> list[int]:
    """Keep each row, from the best to the worst, that is paired with no kept row. This is the rule in its simplest form."""
    near: dict[int, set[int]] = {row: set() for row in range(len(rank))}
    for left, right in pairs.tolist():
        near[left].add(right)
        near[right].add(left)
    representatives: dict[int, int] = {}
    for row in np.argsort(rank).tolist():
        kept = [other for other in near[row] if representatives.get(other) == other]
        representatives[row] = min(kept, key=lambda other: int(rank[other]), default=row)
    return [representatives[row] for row in range(len(rank))]


@pytest.mark.parametrize("seed", range(5))
def test_representatives_and_components_do_not_depend_on_chunks_or_their_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    rank = random.permutation(400)
    pairs = np.unique(np.sort(random.integers(0, 400, (500, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    mixed = random.permutation(pairs)[:, ::-1]
    assert representatives_of_rows(rank, [pairs]).tolist() == greedy(rank, pairs)
    assert representatives_of_rows(rank, np.array_split(mixed, 7)).tolist() == greedy(rank, pairs)
    assert np.array_equal(components(400, [pairs]), components(400, np.array_split(mixed, 7)))


def test_components_of_many_chunks_are_joined() -> None:
    """A ring of 3 million rows is given in chunks larger and smaller than those that are joined at once."""
    count = 3_000_000
    ring = np.stack([np.arange(count), np.roll(np.arange(count), 1)], axis=1)
    assert components(count + 1, [ring[:10], ring[10:2_000_000], ring[2_000_000:]])[[5, count - 1, count]].tolist() == [
        0,
        0,
        count,
    ]


def test_the_best_first_order_does_not_depend_on_the_order_of_rows() -> None:
    pixels = np.array([100, 400, 400, 400, 100])
    score = np.array([0.9, 0.2, 0.3, 0.3, np.nan])
    keys = np.array(["e", "d", "c", "b", "a"])
    rank = best_first(pixels, score, keys=keys)
    assert rank.tolist() == [3, 2, 1, 0, 4]
    backwards = best_first(pixels[::-1], score[::-1], keys=keys[::-1])
    assert backwards[::-1].tolist() == rank.tolist()


def test_the_best_row_of_each_group_is_found() -> None:
    assert best_of_groups(np.array([1, 0, 1, 0]), np.array([3, 1, 0, 2])).tolist() == [1, 2]


def test_tables_without_pairs_or_rows_are_accepted() -> None:
    assert components(2, []).tolist() == [0, 1]
    assert representatives_of_rows(np.array([1, 0]), []).tolist() == [0, 1]
    assert representatives_of_rows(np.zeros(0, np.int64), [np.zeros((0, 2), np.int64)]).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_components_equal_those_of_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 200))
    pairs = random.integers(0, count, (int(random.integers(0, 200)), 2))
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    lowest = [int(np.flatnonzero(numbers == number)[0]) for number in numbers]
    assert components(count, np.array_split(pairs, 3)).tolist() == lowest
