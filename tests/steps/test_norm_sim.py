from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.norm_sim import NormSim, norms
from vlmdata.steps.top_fraction import TopFraction


def embedded(*vectors: list[float] | None) -> pa.Table:
    values = [[np.array(v, "<f2").tobytes() if v else None, None] for v in vectors]
    return set_column(captions(["t"] * len(vectors)), "clip_score.embedding", pa.array(values, pa.list_(pa.binary())))


def step(tmp_path: Path, *targets: np.ndarray, **parameters: object) -> NormSim:
    for number, one in enumerate(targets):
        np.save(tmp_path / f"{number}.npy", one)
    paths = tuple(str(tmp_path / f"{number}.npy") for number in range(len(targets)))
    return NormSim(targets=paths, **parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(("norm", "order"), [("2", 2), ("inf", np.inf)])
def test_norms_are_those_of_the_vector_of_cosines(norm: str, order: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    targets = [random.normal(size=(9000, 20)).astype(np.float16), random.normal(size=(30, 20)) * 7]
    made = step(tmp_path, *targets, norm=norm)
    made.check()
    images = random.normal(size=(600, 20))
    unit = [(one / np.linalg.norm(one, axis=1, keepdims=True)) for one in (images, np.concatenate(targets).astype(np.float64))]
    expected = np.linalg.norm(unit[0] @ unit[1].T, ord=order, axis=1)
    assert np.abs(norms(unit[0].astype(np.float32), made.targets, norm) / expected - 1).max() < 1e-6


def test_the_infinity_norm_is_the_greatest_absolute_cosine(tmp_path: Path) -> None:
    found = step(tmp_path, np.array([[2.0, 0], [0, 1]])).run(embedded([3, 0], [1, 1], [-1, 0], [0.6, 0.8]))
    assert [score[0] for score in found["norm_sim"].to_pylist()] == pytest.approx([1, 0.5**0.5, 1, 0.8], abs=5e-4)


def test_images_below_the_limit_are_rejected_and_others_stay(tmp_path: Path) -> None:
    rows = embedded([1, 0], [1, 1], None, [0, 0], [float("nan"), 1])
    found = step(tmp_path, np.array([[1.0, 0]]), min_score=0.9).run(rows)
    assert found["reason"].to_pylist() == [None, "min_score", None, None, None]
    assert found["value"].to_pylist()[1] == pytest.approx(0.7071, abs=1e-3)
    assert found["norm_sim"].to_pylist()[2:] == [[None, None]] * 3
    strict = step(tmp_path, np.array([[1.0, 0]]), min_score=0.9, unscored="reject").run(rows)
    assert strict["reason"].to_pylist() == [None, "min_score", "no_embedding", "no_embedding", "no_embedding"]


def test_each_image_of_a_document_has_its_score_and_top_fraction_reads_it(tmp_path: Path) -> None:
    rows = table([document({"url": "a"}, "text", {"url": "b"})])
    vectors = [[np.array(v, "<f2").tobytes() if v else None for v in ([1, 0], None, [0, 1])]]
    rows = set_column(rows, "clip_score.embedding", pa.array(vectors, pa.list_(pa.binary())))
    found = step(tmp_path, np.array([[1.0, 0]])).run(rows)
    assert found["norm_sim"].to_pylist() == [[1.0, None, 0.0]]
    kept = TopFraction(score="norm_sim", fraction=0.4).run(found)
    assert [image and image["drop"] for image in kept["images"].to_pylist()[0]] == [None, None, "top_fraction"]


def test_another_file_of_targets_is_another_measurement(tmp_path: Path) -> None:
    before = step(tmp_path, np.array([[1.0, 0]])).identity()
    assert step(tmp_path, np.array([[1.0, 0.5]])).identity() != before
    assert step(tmp_path, np.array([[1.0, 0]])).identity() == before


def test_targets_that_changed_on_disk_are_read_again(tmp_path: Path) -> None:
    images = np.array([[1, 0]], np.float32)
    assert norms(images, step(tmp_path, np.array([[1.0, 0]])).targets, "2") == pytest.approx([1])
    assert norms(images, step(tmp_path, np.array([[0.0, 1], [0, 1]])).targets, "2") == pytest.approx([0])


def test_unusable_targets_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"norm_sim\.targets: give at least one"):
        NormSim(targets=()).check()
    with pytest.raises(RecipeError, match=r"norm_sim\.targets: there is no file"):
        NormSim(targets=("/nowhere.npy",)).check()
    for wrong in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(RecipeError, match=r"must have the shape \(embeddings, width\)"):
            step(tmp_path, wrong).check()
    with pytest.raises(RecipeError, match="with the width 3 of"):
        step(tmp_path, np.ones((2, 3)), np.ones((2, 4))).check()
    with pytest.raises(RecipeError, match=r"row 1 of .*0\.npy is all zeros or not finite"):
        step(tmp_path, np.array([[1.0, 0], [0, 0]])).check()
    with pytest.raises(RecipeError, match="have embeddings of width 3, but"):
        step(tmp_path, np.ones((2, 3))).run(embedded([1, 0]))
