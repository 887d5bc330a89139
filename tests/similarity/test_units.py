import numpy as np

from vlmdata.similarity.units import has_direction, units_of


def test_vectors_of_any_finite_size_get_unit_length() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(50, 33))
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for scale in (1e-30, 1.0, 1e30):
        assert np.abs(units_of(vectors * scale) - expected).max() < 1e-6
    half = vectors.astype(np.float16)
    expected = half.astype(float) / np.linalg.norm(half.astype(float), axis=1, keepdims=True)
    assert np.abs(units_of(half) - expected).max() < 1e-6


def test_zeros_nan_and_infinity_have_no_direction_and_become_zeros() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [1, np.inf], [-np.inf, np.nan]], np.float32)
    assert has_direction(vectors).tolist() == [True, False, False, False, False]
    assert np.abs(units_of(vectors) - [[0.6, 0.8], [0, 0], [0, 0], [0, 0], [0, 0]]).max() < 1e-6
    assert units_of(vectors[:0]).shape == (0, 2)
