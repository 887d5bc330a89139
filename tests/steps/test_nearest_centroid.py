from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.nearest_centroid import NearestCentroid, nearest

CENTROIDS = np.array([[1, 0], [0, 1], [-1, 0], [0, 1]], np.float32)


def files(tmp_path: Path, references: np.ndarray) -> NearestCentroid:
    np.save(tmp_path / "centroids.npy", CENTROIDS)
    np.save(tmp_path / "references.npy", references)
    return NearestCentroid(centroids=str(tmp_path / "centroids.npy"), references=(str(tmp_path / "references.npy"),))


def embedded(*vectors: list[float] | None) -> pa.Table:
    values = [[np.array(v, "<f2").tobytes() if v else None, None] for v in vectors]
    return set_column(captions(["t"] * len(vectors)), "clip_score.embedding", pa.array(values, pa.list_(pa.binary())))


@pytest.mark.parametrize("references", [np.array([[0.1, 0.9], [0.2, 0.8]], np.float16), np.array([1])])
def test_an_image_in_the_cell_of_a_reference_is_kept(references: np.ndarray, tmp_path: Path) -> None:
    step = files(tmp_path, references)
    step.check()
    found = step.run(embedded([0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [-1, 0.5], None))
    assert found["nearest_centroid"].to_pylist() == [[0, None], [0, None], [1, None], [2, None], [None, None]]
    assert found["reason"].to_pylist() == ["far_from_references"] * 2 + [None, "far_from_references", None]


def test_the_nearest_centroid_is_found_exactly_and_the_first_wins_a_tie() -> None:
    random = np.random.default_rng(0)
    centroids = random.normal(size=(300, 64)).astype(np.float32)
    centroids[200:] = centroids[:100] * np.float32(1 + 1e-7)  # nearer than others by a bit or two, or equally near
    vectors = random.normal(size=(500, 64)).astype(np.float16).astype(np.float32)
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    assert np.array_equal(nearest(vectors, centroids), exact.argmax(axis=1))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="must have the shape \\(references, 2\\)"):
        files(tmp_path, np.zeros((5, 3))).check()
    with pytest.raises(RecipeError, match=r"nearest_centroid.centroids: there is no file nowhere.npy. Set nearest_centroid"):
        NearestCentroid(centroids="nowhere.npy", references=()).check()
    np.savez(tmp_path / "a.npz", CENTROIDS)
    for name, data in (("text", b"1 2 3\n"), ("empty", b""), ("archive", (tmp_path / "a.npz").read_bytes())):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RecipeError, match=f"references: .*{name} is not a .npy file of numbers"):
            NearestCentroid(centroids=str(tmp_path / "centroids.npy"), references=(str(tmp_path / name),)).check()
