import os
import subprocess
import sys

import numpy as np
import pytest

from vlmdata.similarity.cosine import exact_products, head_and_tail, pairs_above, pairs_between, quantise
from vlmdata.similarity.kmeans import spherical_kmeans
from vlmdata.similarity.semdedup import by_hardness, follow_to_kept, semantic_duplicates

pytestmark = pytest.mark.whole


def embeddings(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Return vectors with a common direction and unequal axes, like CLIP's. A quarter of them are close to another."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, width)) * np.linspace(2, 0.2, width) + 0.5
    copies = np.flatnonzero(random.random(count) < 0.25)
    source = vectors[random.integers(0, count, len(copies))]
    vectors[copies] = source + random.normal(size=source.shape) * random.uniform(0, 0.6, (len(copies), 1))
    return vectors.astype(np.float32)


def brute(rows: np.ndarray, others: np.ndarray, cosine: float) -> np.ndarray:
    left, right = rows.astype(np.float64), others.astype(np.float64)  # computed with integers, exact to 2**53
    dots = left @ right.T
    norms = np.sqrt((left**2).sum(1)[:, None] * (right**2).sum(1))
    return (dots > cosine * norms) & (norms > 0)


@pytest.mark.parametrize(("width", "cosine"), [(512, 0.95), (512, 0.6), (48, 0.9), (1060, 0.95), (64, -0.2)])
def test_every_pair_above_the_cosine_is_found(width: int, cosine: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmdata.similarity.cosine.BLOCK", 700)
    rows = quantise(embeddings(1500, width))  # three blocks, the last one shorter
    rows[17] = 0
    found = np.concatenate(list(pairs_above(rows, cosine)))
    expected = np.argwhere(np.triu(brute(rows, rows, cosine), 1))
    assert len(expected) > 50
    assert np.array_equal(found[np.lexsort(found.T[::-1])], expected)
    assert np.array_equal(np.concatenate(list(pairs_above(rows, cosine, threads=2))), found)
    between = np.concatenate(list(pairs_between(rows[:500], rows[500:], cosine)))
    assert np.array_equal(between[np.lexsort(between.T[::-1])], np.argwhere(brute(rows[:500], rows[500:], cosine)))


def test_the_filter_uses_only_part_of_the_width_if_that_is_faster() -> None:
    assert head_and_tail(quantise(embeddings(3000, 512)), 0.95).shape[1] < 200


def test_quantised_cosines_are_close_to_the_true_ones() -> None:
    vectors = embeddings(400, 512)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = quantise(vectors).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(rows @ rows.T - units @ units.T).max() < 0.005
    assert quantise(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match="row 1 has an entry"):
        quantise(np.array([[1.0, 0], [np.nan, 1]]))


@pytest.mark.parametrize("width", [1040, 1041, 3000])
def test_products_are_exact_at_their_largest_values(width: int) -> None:
    rows = np.full((2, width), 127, np.int8)
    rows[1, ::2] = -127
    assert exact_products(rows, rows).tolist() == (rows.astype(np.int64) @ rows.astype(np.int64).T).tolist()


THREADED = """
import hashlib, sys
from tests.similarity.test_cosine import embeddings
from vlmdata.similarity.cosine import quantise
from vlmdata.similarity.kmeans import spherical_kmeans
print([hashlib.sha256(part.tobytes()).hexdigest() for part in spherical_kmeans(quantise(embeddings(3000, 96)), 40)])
"""


def test_cells_do_not_depend_on_threads() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", THREADED],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(outputs) == 1


def test_kmeans_finds_planted_cells_and_follows_its_seed() -> None:
    random = np.random.default_rng(1)
    centres = random.normal(size=(8, 64))
    truth = random.integers(0, 8, 800)
    rows = quantise(centres[truth] + random.normal(size=(800, 64)) * 0.2)
    _, cells = spherical_kmeans(rows, 40, rounds=20, seed=3)
    assert all(len(set(truth[cells == cell])) == 1 for cell in set(cells.tolist()))
    assert not np.array_equal(spherical_kmeans(rows, 40, seed=4)[1], cells)
    with pytest.raises(ValueError, match="from 1 to the number of rows"):
        spherical_kmeans(rows[:3], 4)


def test_semdedup_drops_a_row_similar_to_an_earlier_one_even_if_that_was_dropped() -> None:
    """A, B and C are turned by 10 degrees each, so B resembles A, and C resembles only B. D is like A but in another cell."""
    angles = np.radians([0, 10, 20, 1])
    rows = quantise(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    similar, similarity = semantic_duplicates(rows, np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]), np.cos(np.radians(15)))
    assert similar.tolist() == [0, 0, 1, 3]
    assert follow_to_kept(similar).tolist() == [0, 0, 0, 3]
    assert np.isnan(similarity[[0, 3]]).all()
    assert similarity[1] == pytest.approx(np.cos(np.radians(10)), abs=0.01)
    similar, _ = semantic_duplicates(rows, np.array([0, 0, 0, 1]), np.array([2, 1, 0, 3]), np.cos(np.radians(15)))
    assert similar.tolist() == [1, 2, 2, 3]


def test_semdedup_equals_a_direct_implementation_of_its_rule() -> None:
    rows = quantise(embeddings(2500, 64, seed=4))  # a cell of more than two blocks
    centroids, _ = spherical_kmeans(rows, 1)
    cells = np.zeros(len(rows), np.int64)
    rank = by_hardness(rows, cells, centroids)
    similar, _ = semantic_duplicates(rows, cells, rank, 0.9)
    order = np.argsort(rank)
    is_above = np.tril(brute(rows[order], rows[order], 0.9), -1)
    assert np.array_equal(np.sort(order[is_above.any(axis=1)]), np.flatnonzero(similar != np.arange(len(rows))))
    assert 100 < is_above.any(axis=1).sum() < 2400
