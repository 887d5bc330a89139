import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from vlmdata.similarity import highest_cosines as module
from vlmdata.similarity.highest_cosines import highest_cosines
from vlmdata.similarity.units import units_of


def in_blocks(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


@pytest.mark.parametrize("size", [3, 64, 1000])
@pytest.mark.parametrize("absolute", [False, True])
def test_the_highest_cosines_are_those_of_a_plain_sort(size: int, absolute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 7)
    random = np.random.default_rng(0)
    vectors, others = units_of(random.normal(size=(40, 24))), random.normal(size=(300, 24)).astype(np.float16)
    cosines = vectors.astype(float) @ units_of(others).astype(float).T
    cosines = np.abs(cosines) if absolute else cosines
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :5]
    found, values = highest_cosines(vectors, lambda: in_blocks(others, size), 5, absolute=absolute)
    assert found.tolist() == expected.tolist()
    assert np.abs(values - np.take_along_axis(cosines, expected, 1)).max() < 1e-12


def test_equal_cosines_are_ordered_by_index_and_do_not_depend_on_the_call() -> None:
    random = np.random.default_rng(1)
    vectors, distinct = units_of(random.normal(size=(60, 17))), random.normal(size=(30, 17)).astype(np.float32)
    others = np.concatenate([distinct, distinct[::-1], distinct])
    together, values = highest_cosines(vectors, lambda: in_blocks(others, 8), 6)
    assert (np.diff(together.reshape(-1, 3), axis=1) > 0).all(), "the three copies of each, in ascending order"
    for row in range(len(vectors)):
        alone, value = highest_cosines(vectors[row : row + 1], lambda: in_blocks(others, 8), 6)
        assert (alone[0].tolist(), value[0].tolist()) == (together[row].tolist(), values[row].tolist())


def test_all_others_are_ranked_if_as_many_are_asked_for() -> None:
    vectors = units_of(np.array([[1.0, 0.1]]))
    found, _ = highest_cosines(vectors, lambda: [np.array([[0.0, 1.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]])], 3)
    assert found.tolist() == [[1, 0, 2]]


def test_equal_others_do_not_multiply_the_memory() -> None:
    """All pairs are candidates: 1,024 x 4,096 exact products of width 64 at a time would take 4 GB."""
    others = np.ones((4096, 64), np.float16)
    tracemalloc.start()
    found, _ = highest_cosines(units_of(np.ones((1024, 64))), lambda: iter([others]), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tolist() == [[0, 1]] * 1024 and peak < 1 << 29
