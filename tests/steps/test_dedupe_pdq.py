import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.dedupe_pdq import DedupePdq


def hashed(values: list[int | None], qualities: list[float | None], sizes: list[int]) -> pa.Table:
    rows = captions(["text"] * len(values), size=sizes)
    packed = [[None if value is None else value.to_bytes(32, "big"), None] for value in values]
    rows = set_column(rows, "pdq_hash", pa.array(packed, pa.list_(pa.binary())))
    return set_column(rows, "pdq_hash.quality", pa.array([[q, None] for q in qualities], pa.list_(pa.float64())))


def test_hashes_within_31_bits_are_duplicates_and_32_bits_are_not() -> None:
    base = int.from_bytes(np.random.default_rng(0).bytes(32), "big")
    near, far = base ^ sum(1 << (8 * bit) for bit in range(31)), base ^ sum(2 << (8 * bit) for bit in range(32))
    rows = hashed([base, near, far, base, None], [100, 100, 100, 49, None], [1, 2, 3, 9, 9])
    found = DedupePdq().run(rows)
    keys = rows["key"].to_pylist()
    assert found["drop"].to_pylist() == ["dedupe_pdq", None, None, None, None]
    assert (found["cluster"].to_pylist()[0], found["value"].to_pylist()[0]) == (keys[1], 31.0)
    assert DedupePdq(min_quality=0, distance=0).run(rows)["drop"].to_pylist() == ["dedupe_pdq", None, None, None, None]


def test_a_distance_that_cannot_be_searched_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"must lie in 0\.\.126"):
        DedupePdq(distance=127).check()
