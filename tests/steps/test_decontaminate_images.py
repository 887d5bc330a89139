import io
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from tests.parts import open_part
from tests.rows import captions
from vlmdata.demo.recipe import HERE, figures
from vlmdata.images.phash import phash
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.decontaminate_images import DecontaminateImages

MODEL = f"local-dir:{HERE / 'clip'}"


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_a_small_copy_of_a_reference_is_dropped_and_other_pictures_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "images"
    folder.mkdir(parents=True)
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.jpg"), picture(seed)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    small = cv2.resize(picture(1), (200, 150), interpolation=cv2.INTER_AREA)
    rows = captions(list("abc"), phash=[np.uint64(phash(small)), np.uint64(phash(picture(7))), None])
    step = DecontaminateImages(references=(str(tmp_path / "eval"),))
    step.check()
    found = step.run(rows)
    assert found["reason"].to_pylist() == ["looks_like_evaluation", None, None]
    assert found["value"].to_pylist()[0] <= 8


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_references_in_a_tar_equal_those_in_a_folder(mode: str, tmp_path: Path) -> None:
    """A text and a folder in the tar, which are not pictures, are ignored."""
    with tarfile.open(tmp_path / f"eval.tar{'.gz' if ':' in mode else ''}", mode) as tar:
        for name, body in [("images/7.txt", b"a caption"), *((f"images/{n}.JPG", jpeg(picture(n))) for n in range(3))]:
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    rows = captions(list("ab"), phash=[np.uint64(phash(picture(2))), np.uint64(phash(picture(7)))])
    step = DecontaminateImages(references=(str(tmp_path),))
    step.check()
    assert step.run(rows)["reason"].to_pylist() == ["looks_like_evaluation", None]


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()


def test_images_with_an_embedding_close_to_a_reference_are_dropped(tmp_path: Path) -> None:
    np.save(tmp_path / "eval.npy", np.array([[1.0, 0], [0, 2]], np.float16))
    vectors = [[0.99, 0.05], [0.7, 0.7], None, [0.1, 3]]
    rows = set_column(
        captions(list("abcd")), "clip_score.embedding", pa.array([[v, None] for v in vectors], pa.list_(pa.list_(pa.float32())))
    )
    step = DecontaminateImages(embeddings=(str(tmp_path / "eval.npy"),))
    assert step.run(rows)["reason"].to_pylist() == ["means_like_evaluation", None, None, "means_like_evaluation"]


def test_files_that_hold_no_embeddings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("no array")
    np.save(tmp_path / "flat.npy", np.ones(8))
    expected = {"a": "is not a .npy file of numbers", "flat": "must have the shape", "gone": "there is no file"}
    for name, message in expected.items():
        with pytest.raises(RecipeError, match=rf"decontaminate_images.embeddings: .*{message}"):
            DecontaminateImages(embeddings=(str(tmp_path / f"{name}.npy"),)).check()


def test_a_broken_reference_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(RecipeError, match=r"cannot decode the reference .*broken\.jpg"):
        DecontaminateImages(references=(str(tmp_path),)).run(captions(["a"], phash=[1]))
    with pytest.raises(RecipeError, match="set `references`"):
        DecontaminateImages().check()


def test_reference_images_are_embedded_with_the_model_of_the_scores(tmp_path: Path) -> None:
    """A smaller and darker copy of a figure has a similar embedding. Its hash is not compared."""
    chosen = [HERE / "figures" / figure["file"] for figure in figures()[:6]]
    (tmp_path / "eval").mkdir()
    shutil.copy(chosen[2], tmp_path / "eval")
    sizes = [path.stat().st_size for path in chosen]
    rows = captions(list("abcdef"), blob=[str(path) for path in chosen], offset=[0] * 6, size=sizes)
    part = open_part(tmp_path / "out")
    rows = ClipScore(model=MODEL, min_score=-1, embeddings=True).run(rows, part)
    step = DecontaminateImages(references=(str(tmp_path / "eval"),), model=MODEL, cosine=0.999)
    step.check()
    found = step.run(rows, part)
    assert found["reason"].to_pylist() == [None, None, "means_like_evaluation", None, None, None]
    assert [values[0] is None for values in found["decontaminate_images.bits"].to_pylist()] == [True] * 6
    cosines = [values[0] for values in found["decontaminate_images.cosine"].to_pylist()]
    assert cosines[2] > 0.999 > max(cosines[:2] + cosines[3:])


def test_another_evaluation_set_changes_the_identity_of_the_step(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    before = DecontaminateImages(references=(str(tmp_path),)).identity()
    (tmp_path / "b.jpg").write_bytes(b"two")
    assert DecontaminateImages(references=(str(tmp_path),)).identity() != before
