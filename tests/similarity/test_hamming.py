from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.similarity.hashes import brute_pairs, lifelike
from vlmdata.similarity import pigeonhole_blocks
from vlmdata.similarity.hamming import edges_within, pairs_within
from vlmdata.similarity.hamming256 import distinct_pairs_256
from vlmdata.similarity.nearest import nearest

DISTANCES = [0, 1, 2, 4, 6, 8, 10, 16]


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_pair_within_the_distance_is_found_once(distance: int) -> None:
    hashes = lifelike(1500)
    assert np.array_equal(pairs_within(hashes, distance), brute_pairs(hashes, distance))


@pytest.mark.parametrize("distance", [1, 4, 8])
def test_the_number_of_blocks_and_of_threads_does_not_change_the_pairs(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = lifelike(1200, seed=1)
    expected = brute_pairs(hashes, distance)
    for count in range(distance + 1, distance + 4):
        monkeypatch.setattr(pigeonhole_blocks, "best_blocks", lambda *_, count=count: count)
        assert np.array_equal(pairs_within(hashes, distance, threads=3), expected)


@pytest.mark.parametrize("distance", [0, 1, 3])
def test_exactly_one_table_finds_each_pattern_of_different_bits(distance: int) -> None:
    """Whichever bits differ, exactly one table claims the pair. The test checks all positions of up to three bits."""
    todo = pigeonhole_blocks.tables(10**6, distance)
    for count in range(distance + 1):
        differences = np.array([sum(1 << bit for bit in bits) for bits in combinations(range(64), count)], np.uint64)
        claims = np.stack([pigeonhole_blocks.is_first(differences, table) for table in todo])
        assert (claims.sum(axis=0) == 1).all()


def test_moving_the_key_bits_to_the_top_is_reversible_and_keeps_distances() -> None:
    hashes = lifelike(300)
    for table in pigeonhole_blocks.tables(10**6, 6):
        moved = pigeonhole_blocks.move(hashes, table)
        assert np.array_equal(pigeonhole_blocks.move_back(moved, table), hashes)
        assert np.array_equal(np.bitwise_count(moved[1:] ^ moved[:-1]), np.bitwise_count(hashes[1:] ^ hashes[:-1]))


def test_long_runs_of_nearly_equal_hashes_are_compared_in_full() -> None:
    """1,200 hashes that differ only in the last 11 bits form one run in every table that leaves those bits out."""
    hashes = (np.uint64(0xABCD << 40) + np.arange(1200, dtype=np.uint64))[::-1].copy()
    assert np.array_equal(pairs_within(hashes, 3), brute_pairs(hashes, 3))


def test_edges_connect_the_same_rows_as_pairs_without_quadratic_growth() -> None:
    hashes = np.array([7, 7, 7, 7, 5, 5, 1 << 60], np.uint64)
    edges = np.concatenate(list(edges_within(hashes, 1)))
    assert sorted(map(tuple, edges.tolist())) == [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5)]
    assert len(pairs_within(hashes, 1)) == 6 + 1 + 8


@pytest.mark.parametrize("count", [0, 1, 2])
def test_lists_of_few_hashes_are_searched(count: int) -> None:
    hashes = np.zeros(count, np.uint64)
    assert pairs_within(hashes, 4).tolist() == ([[0, 1]] if count == 2 else [])
    distinct = np.arange(4 * count, dtype=np.uint64).reshape(count, 4)
    assert pairs_of_256(distinct, 31) == ([[0, 1]] if count == 2 else [])


def test_a_distance_outside_the_supported_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"distance must be in 0\.\.16"):
        pairs_within(np.zeros(2, np.uint64), 17)


def pairs_of_256(distinct: NDArray[np.uint64], distance: int) -> list[list[int]]:
    found = [np.sort(pairs, axis=1).tolist() for pairs in distinct_pairs_256(distinct, distance)]
    return sorted(pair for pairs in found for pair in pairs)


@pytest.mark.parametrize("distance", [1, 7, 31, 60])
def test_pairs_of_256_bit_hashes_are_found(distance: int) -> None:
    random = np.random.default_rng(2)
    hashes = np.stack([lifelike(500, seed) for seed in range(4)], axis=1)
    for copy in range(100):
        bits = np.unpackbits(hashes[random.integers(0, 300)].view(np.uint8))
        bits[random.choice(256, random.integers(0, 70), replace=False)] ^= 1
        hashes[300 + copy] = np.packbits(bits).view(np.uint64)
    distinct = np.unique(hashes, axis=0)
    expected = brute_pairs(distinct, distance).tolist()
    assert len(expected) > (10 if distance > 1 else 0)
    assert pairs_of_256(distinct, distance) == expected
    assert pairs_of_256(distinct, 0) == []


@pytest.mark.parametrize("distance", [0, 3, 8])
def test_nearest_equals_a_comparison_with_every_reference(distance: int) -> None:
    hashes = lifelike(2500)
    queries, references = hashes[:2000], hashes[2000:]
    bits = np.bitwise_count(queries[:, None] ^ references)
    place, near = nearest(queries, references, distance, threads=2)
    is_near = bits.min(axis=1) <= distance
    assert 10 < is_near.sum() < 2000
    assert np.array_equal(place, np.where(is_near, bits.argmin(axis=1), -1))
    assert np.array_equal(near, np.where(is_near, bits.min(axis=1), 255))


def test_nearest_accepts_no_references_or_no_queries() -> None:
    none = np.zeros(0, np.uint64)
    assert nearest(np.zeros(2, np.uint64), none, 4)[0].tolist() == [-1, -1]
    assert len(nearest(none, np.zeros(2, np.uint64), 4)[0]) == 0
