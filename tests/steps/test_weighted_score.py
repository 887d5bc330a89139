import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.top_fraction import TopFraction
from vlmdata.steps.weighted_score import WeightedScore


def rows() -> pa.Table:
    table = captions(list("abcd"))
    table = set_column(table, "b32", pa.array([[0.2, None], [0.4, None], [None, None], [0.1, None]], pa.list_(pa.float64())))
    return set_column(table, "quality", pa.array([1.0, 0.0, 1.0, 1.0]))


def test_the_sum_is_stored_and_a_row_without_a_score_is_kept_without_one() -> None:
    found = WeightedScore(weights={"b32": 1.0, "quality": 0.5}, min_score=0.6).run(rows())
    assert found["weighted_score"].to_pylist() == [[0.7, None], [0.4, None], [None, None], [0.6, None]]
    assert found["reason"].to_pylist() == [None, "min_score", None, None]


def test_top_fraction_can_use_the_weighted_sum() -> None:
    found = TopFraction(score="weighted_score", fraction=0.34).run(WeightedScore(weights={"b32": 1.0}).run(rows()))
    assert found["drop"].to_pylist() == [None, None, None, "top_fraction"]
    with pytest.raises(RecipeError, match="at least one score"):
        WeightedScore(weights={}).check()
