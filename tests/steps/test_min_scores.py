import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.min_scores import MinScores

FLOATS = pa.list_(pa.float32())


def scored(b32: list[float | None], l14: list[float | None], languages: list[str] | None = None) -> pa.Table:
    rows = captions([f"text {i}" for i in range(len(b32))])
    rows = set_column(rows, "b32", pa.array([[value, None] for value in b32], FLOATS))
    rows = set_column(rows, "l14", pa.array([[value, None] for value in l14], FLOATS))
    codes = languages or ["en"] * len(b32)
    return set_column(rows, "language", pa.array([[None, code] for code in codes], pa.list_(pa.string())))


def test_all_scores_or_any_one_must_reach_their_inclusive_limits() -> None:
    rows = scored([0.3, 0.3, 0.1, 0.1, 0.26], [0.2, 0.1, 0.2, 0.1, 0.2])
    least = {"b32": 0.26, "l14": 0.2}
    found = MinScores(scores=least).run(rows)
    assert found["reason"].to_pylist() == [None, "min_l14", "min_b32", "min_b32", None]
    assert found["threshold"].to_pylist()[1] == pytest.approx(0.2)
    assert MinScores(scores=least, need="any").run(rows)["reason"].to_pylist() == [None, None, None, "min_b32", None]


def test_a_language_has_separate_values_and_scores() -> None:
    """LAION-5B requires 0.28 by one model for English and 0.26 by another for all other languages. Equal scores pass."""
    rows = scored([0.28, 0.27, 0.1, 0.9], [0.1, 0.9, 0.26, 0.25], ["en", "en", "de", "zh"])
    found = MinScores(scores={"l14": 0.26}, by_language={"en": {"b32": 0.28}}).run(rows)
    assert found["reason"].to_pylist() == [None, "min_b32", None, "min_l14"]


def test_a_missing_score_is_ignored() -> None:
    rows = scored([None, None, 0.1], [None, 0.1, None])
    for need in ("all", "any"):
        step = MinScores(scores={"b32": 0.2, "l14": 0.2}, need=need)  # type: ignore[arg-type]
        assert step.run(rows)["reason"].to_pylist() == [None, "min_l14", "min_b32"]


def test_documents_lose_images_and_a_score_of_the_row_counts_for_each_image() -> None:
    rows = table([document({"url": "a"}, "text", {"url": "b"})])
    rows = set_column(rows, "clip_score", pa.array([[0.1, None, 0.3]], FLOATS))
    rows = set_column(rows, "quality", pa.array([0.9]))
    found = MinScores(scores={"clip_score": 0.2, "quality": 0.5}).run(rows)
    assert [image and image["drop"] for image in found["images"].to_pylist()[0]] == ["min_scores", None, None]
    assert MinScores(scores={"quality": 0.95}).run(rows)["reason"].to_pylist() == ["min_quality"]


def test_an_empty_list_of_scores_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one score for en"):
        MinScores(scores={"a": 1.0}, by_language={"en": {}}).check()
