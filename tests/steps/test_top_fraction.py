import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.top_fraction import TopFraction, threshold_of


def test_the_threshold_is_the_score_at_the_index_and_ties_are_kept() -> None:
    """DataComp, apply_filter.py: n = int(len * fraction); threshold = -np.sort(-scores)[n]; keep score >= threshold."""
    scores = np.array([0.1, 0.4, 0.3, 0.3, 0.9, 0.3, 0.2, 0.8, 0.7, 0.6])
    for fraction in (0.1, 0.3, 0.45, 0.5, 0.99):
        assert threshold_of(scores, fraction) == -np.sort(-scores)[int(len(scores) * fraction)]
    assert threshold_of(scores, 1.0) == -np.inf == threshold_of(scores[:0], 0.3)


def test_images_below_the_threshold_are_dropped_and_unscored_ones_are_ignored() -> None:
    rows = captions(list("abcdef"))
    scores = pa.array([[0.1, None], [0.4, None], None, [0.3, None], [0.3, None], [0.2, None]], pa.list_(pa.float64()))
    found = TopFraction(fraction=0.3).run(set_column(rows, "clip_score", scores))
    assert found["drop"].is_null().to_pylist() == [False, True, True, True, True, False]
    assert found["value"].to_pylist()[0] == 0.1
    assert set(found["threshold"].to_pylist()) == {0.3, None}


def test_scores_of_rows_are_used_and_rows_dropped_before_are_ignored() -> None:
    rows = set_column(captions(list("abcd")), "quality", pa.array([9.0, 3, 2, 1]))
    rows = set_column(rows, "drop", pa.array(["other", None, None, None], pa.string()))
    assert TopFraction(score="quality", fraction=0.34).run(rows)["drop"].to_pylist() == ["other", None, None, "top_fraction"]


def test_a_fraction_of_zero_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"must lie in \(0, 1\]"):
        TopFraction(fraction=0).check()
