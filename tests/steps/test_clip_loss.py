import json

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from tests.similarity.test_clip_loss import pairs, plain
from tests.similarity.test_distributed import decided
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.clip_loss import ClipLoss
from vlmdata.steps.source_score import SourceScore
from vlmdata.steps.top_fraction import TopFraction

COLUMNS = ("clip_score.embedding", "text_embedding")


def column(vectors: list) -> pa.Array:
    return pa.array([[None if v is None else np.asarray(v, "<f2").tobytes(), None] for v in vectors], pa.list_(pa.binary()))


def embedded(images: list, texts: list) -> pa.Table:
    rows = captions([f"text {number}" for number in range(len(images))])
    for name, vectors in zip(COLUMNS, (images, texts), strict=True):
        rows = set_column(rows, name, column(vectors))
    return rows


def random_rows(count: int = 300) -> pa.Table:
    images, texts = pairs(count)
    return embedded(list(images), list(texts))


def scores(rows: pa.Table, name: str = "loss") -> list[float | None]:
    return [json.loads(extra or "{}").get(name) for extra in rows["extra"].to_pylist()]


def test_scores_of_rows_of_one_batch_are_those_of_the_published_formula() -> None:
    images, texts = (one.astype(np.float16).astype(np.float64) for one in pairs(200))
    found = scores(ClipLoss(fraction=1, store_as="loss").run(embedded(list(images), list(texts))))
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (images, texts)]
    assert np.abs(np.array(found) - plain(units[0], units[1], 0.01)).max() < 1e-5


def test_pairs_below_the_threshold_are_rejected_with_score_and_threshold() -> None:
    rows = random_rows()
    all_scores = np.array(scores(ClipLoss(fraction=1, temperature=0.1, store_as="loss").run(rows)))
    found = ClipLoss(fraction=0.25, temperature=0.1).run(rows)
    assert found["drop"].null_count == 76
    threshold = np.sort(all_scores)[::-1][75]
    assert found["drop"].is_null().to_pylist() == (all_scores >= threshold).tolist()
    lost = found.filter(found["drop"].is_valid())
    assert set(lost["reason"].to_pylist()) == {"below_fraction"} and set(lost["threshold"].to_pylist()) == {threshold}
    assert lost["value"].to_pylist() == all_scores[all_scores < threshold].tolist()
    assert found["extra"].null_count == 300, "scores are stored only on request"


def test_top_fraction_and_source_score_read_the_stored_score() -> None:
    rows = ClipLoss(fraction=1, temperature=0.1, store_as="loss").run(random_rows())
    read = SourceScore(label="loss", of="loss", single=False).run(rows)
    assert read["loss"].to_pylist() == scores(rows)
    kept = TopFraction(score="loss", fraction=0.25).run(read)
    assert kept["drop"].to_pylist().count(None) == 76
    assert ClipLoss(fraction=0.25, temperature=0.1).run(random_rows())["drop"].null_count == 76


@pytest.mark.parametrize("cuts", [[], [100, 100, 260], [1, 299]])
def test_order_partitions_and_distribution_change_no_score(cuts: list[int]) -> None:
    step = ClipLoss(batch=64, repeats=3, temperature=0.1, fraction=0.3, store_as="loss")
    rows = random_rows()
    rows = set_column(rows, "drop", pa.array(["before" if n % 10 == 0 else None for n in range(300)], pa.string()))
    alone, spread = step.decide(rows), decided(step, rows, cuts)
    for name in ("key", "drop", "reason", "value", "threshold", "images", "extra"):
        assert spread[name].to_pylist() == alone[name].to_pylist()
    order = np.random.default_rng(0).permutation(300)
    again = step.decide(rows.take(order))
    assert scores(again) == [scores(alone)[place] for place in order]
    other = ClipLoss(batch=64, repeats=3, temperature=0.1, seed=1, fraction=1, store_as="loss")
    assert scores(other.decide(rows)) != scores(alone)


def test_missing_and_unusable_embeddings_have_no_score_and_a_defined_outcome() -> None:
    one, nan, zero = np.eye(4)[0], np.full(4, np.nan), np.zeros(4)
    rows = embedded([one, one, nan, one, zero, None], [one, np.eye(4)[1], one, None, one, one])
    found = ClipLoss(fraction=1, store_as="loss", temperature=1.0).run(rows)
    assert scores(found)[2:] == [None] * 4 and found["drop"].null_count == 6
    strict = ClipLoss(fraction=1, unscored="reject").run(rows)
    assert strict["reason"].to_pylist() == [None, None, *["no_embedding"] * 4]


def test_each_image_of_a_document_is_a_pair_and_the_row_has_the_highest_score() -> None:
    eye = [np.array(one, "<f2").tobytes() for one in np.eye(4)]
    rows = table([document({"url": "a"}, "t", {"url": "b"}), document({"url": "c"}, "t")])
    for name, values in zip(
        COLUMNS, ([[eye[0], None, eye[1]], [eye[2], None]], [[eye[0], None, eye[2]], [eye[2], None]]), strict=True
    ):
        rows = set_column(rows, name, pa.array(values, pa.list_(pa.binary())))
    found = ClipLoss(fraction=0.5, temperature=0.1, store_as="loss").run(rows)
    assert [image and image["drop"] for image in found["images"].to_pylist()[0]] == [None, None, "clip_loss"]
    assert found["drop"].null_count == 2
    images, texts = np.eye(4)[[0, 1, 2]], np.eye(4)[[0, 2, 2]]
    expected = plain(images, texts, 0.1)
    assert scores(found) == pytest.approx([max(expected[:2]), expected[2]], abs=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_rows_are_decided_too(count: int) -> None:
    rows = random_rows(5).slice(0, count)
    found = ClipLoss(store_as="loss").run(rows)
    assert found["drop"].null_count == count and scores(found) == pytest.approx([0.0] * count, abs=1e-6)
    gone = set_column(random_rows(5), "drop", pa.array(["before"] * 5))
    assert decided(ClipLoss(), gone, [2])["drop"].to_pylist() == ["before"] * 5


def test_equal_pairs_stay_or_go_together() -> None:
    rows = embedded([np.eye(3)[0]] * 40, [np.eye(3)[0]] * 40)
    assert ClipLoss(fraction=0.1).run(rows)["drop"].null_count == 40


def test_embeddings_of_unequal_width_are_refused_with_the_fix() -> None:
    with pytest.raises(RecipeError, match=r"clip_loss\.text_embedding: .* width 3, but the images' have 4"):
        ClipLoss().run(embedded([np.eye(4)[0]], [np.eye(3)[0]]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fraction": 0}, r"clip_loss\.fraction must lie in \(0, 1\]"),
        ({"fraction": 1}, r"clip_loss\.fraction: 1 keeps all"),
        ({"temperature": 0}, r"clip_loss\.temperature must lie in"),
        ({"batch": 1}, "batch must be at least 2"),
        ({"repeats": 0}, "repeats at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(parameters: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ClipLoss(**parameters).check()


def test_captions_that_fit_every_image_lose_although_their_cosine_is_high() -> None:
    """A fifth of the pairs have a text near the mean of all images. Plain cosine ranks most of them above true pairs."""
    random = np.random.default_rng(0)
    images, texts = pairs(500, 64, noise=2.5)
    is_generic = random.random(500) < 0.2
    generic = images.mean(axis=0) / np.linalg.norm(images.mean(axis=0))
    texts[is_generic] = generic + 0.02 * random.normal(size=(int(is_generic.sum()), 64))
    rows = embedded(list(images), list(texts))
    cosines = np.einsum("nd,nd->n", images, texts)
    found = np.array(scores(ClipLoss(fraction=1, temperature=0.05, store_as="loss").run(rows)))
    assert auc(cosines, is_generic) < 0.45 < 0.8 < auc(found, is_generic)


def auc(values: np.ndarray, is_bad: np.ndarray) -> float:
    """Return the share of (good, bad) pairs in which the good one has the higher score."""
    return float((values[~is_bad][:, None] > values[is_bad]).mean())


def test_partitions_with_embeddings_of_other_widths_are_refused() -> None:
    parts = [embedded([np.ones(width)] * 3, [np.ones(width)] * 3) for width in (4, 6)]
    with pytest.raises(RecipeError, match="some embeddings have the width 4, others 6"):
        decided(ClipLoss(), pa.concat_tables(parts), [3])
