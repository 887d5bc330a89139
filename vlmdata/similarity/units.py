"""Scale embeddings to unit length. N vectors, D width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.float32]  # (N, D), each row of length 1, or 0 if it has no direction


def has_direction(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which vectors are finite and not all zero: (N, D) -> (N,)."""
    largest = np.abs(vectors).max(axis=1, initial=0)
    return np.isfinite(largest) & (largest > 0)  # the largest of a row with NaN is NaN


def units_of(vectors: NDArray[np.floating]) -> Units:
    """Return the vectors scaled to unit length: (N, D) -> (N, D). A vector without a direction becomes zeros."""
    good = has_direction(vectors)
    found: Units = np.zeros(vectors.shape, np.float32)
    some = vectors[good].astype(np.result_type(vectors, np.float32))
    some /= np.abs(some).max(axis=1, keepdims=True, initial=0)  # so that squares neither overflow nor vanish
    small = some.astype(np.float32)
    found[good] = small / np.sqrt(np.einsum("nd,nd->n", small, small))[:, None]
    return found
