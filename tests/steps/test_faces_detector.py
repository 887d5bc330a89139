"""MTCNN with its published weights, on photos with faces that were labelled by hand."""

import io
import json
import zipfile

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.steps.group_photo import FACES, group_photo
from vlmdata.images.decode import decode
from vlmdata.images.face_boxes import pixels_within
from vlmdata.models.mtcnn import Mtcnn
from vlmdata.models.mtcnn_files import INSIDE, is_published, read_weights, weights_digest
from vlmdata.step import RecipeError
from vlmdata.steps.faces import Faces

LABELS = json.loads(fixture("J_faces/labels.json").read_text())
MADE_BY_FACENET = {  # facenet-pytorch 2.6.0 with torch 2.14.1, MTCNN(keep_all=True).detect on the fixture's photos
    "000000011149": [[-21.04, 20.35, 17.93, 60.13, 0.9871]],
    "000000347254": [
        [219.44, 129.1, 232.33, 145.81, 0.99985],
        [49.16, 49.19, 156.31, 184.82, 0.9997],
        [198.4, 95.3, 220.45, 122.33, 0.90752],
    ],
}


@pytest.fixture(scope="module")
def mtcnn():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Mtcnn(read_weights(str(fixture("J_faces/mtcnn"))))
    torch.set_num_threads(before)


def photo(number: int) -> np.ndarray:
    return decode(fixture(f"J_faces/photos/{number:012d}.jpg").read_bytes()).pixels


def wheel(path, **changed: bytes) -> str:
    """Write a wheel like that of facenet-pytorch and return its path. `changed` are the contents of files, None for none."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in ("pnet", "rnet", "onet"):
            body = changed.get(name, fixture(f"J_faces/mtcnn/{name}.pt").read_bytes())
            if body is not None:
                out.writestr(f"{INSIDE}/{name}.pt", body)
    return str(path)


@pytest.mark.parametrize("name", MADE_BY_FACENET)
def test_boxes_and_probabilities_are_those_of_facenet_pytorch(name, mtcnn):
    found = mtcnn.faces(photo(int(name)), 20)
    assert found.shape == (len(MADE_BY_FACENET[name]), 5)
    assert found == pytest.approx(np.array(MADE_BY_FACENET[name]), abs=0.1)


def test_every_face_of_a_group_is_found(mtcnn):
    assert len(mtcnn.faces(decode(group_photo()).pixels, 20)) == FACES


def test_a_hundred_faces_are_found(mtcnn):
    x0, y0, x1, y1 = mtcnn.faces(photo(347254), 20)[:, :4].round().astype(int)[0]
    face = cv2.resize(photo(347254)[y0 - 20 : y1 + 20, x0 - 15 : x1 + 15], (60, 60), interpolation=cv2.INTER_AREA)
    assert 95 <= len(mtcnn.faces(np.tile(face, (10, 10, 1)), 20)) <= 105


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (11, 11), (12, 12), (19, 30)])
def test_images_too_small_for_a_face_have_none(size, mtcnn):
    assert mtcnn.faces(np.full((*size, 3), 127, np.uint8), 20).shape == (0, 5)


def test_noise_has_few_faces(mtcnn):
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    assert len(mtcnn.faces(noise, 20)) < 3


def test_a_wheel_and_a_folder_give_the_same_weights(tmp_path):
    from_wheel, from_folder = read_weights(wheel(tmp_path / "a.whl")), read_weights(str(fixture("J_faces/mtcnn")))
    assert is_published(from_wheel) and weights_digest(from_wheel) == weights_digest(from_folder)


def with_nan(tensors: dict) -> bytes:
    return as_file({name: tensor * np.nan if name == "conv2.weight" else tensor for name, tensor in tensors.items()})


def as_file(tensors: object) -> bytes:
    out = io.BytesIO()
    torch.save(tensors, out)
    return out.getvalue()


RNET = torch.load(fixture("J_faces/mtcnn/rnet.pt"), weights_only=True)
DAMAGED = {
    "values that are not finite": with_nan(RNET),
    "Missing key": as_file({name: tensor for name, tensor in RNET.items() if name != "conv2.weight"}),
    "size mismatch": as_file(RNET | {"conv2.weight": torch.zeros(3)}),
    "Weights only load failed": as_file(Image.new("L", (1, 1))),  # a pickle that would run code of another library
    "does not hold the weights": b"no weights",
    "bytes, but these weights": bytes((16 << 20) + 1),
    "holds no facenet_pytorch/data/rnet.pt": None,
}


@pytest.mark.parametrize("says", DAMAGED)
def test_weights_that_cannot_be_used_are_named_before_work(says, tmp_path):
    with pytest.raises(RecipeError) as raised:
        Faces(weights=wheel(tmp_path / "a.whl", rnet=DAMAGED[says])).check()
    message = str(raised.value)
    assert message.startswith("faces.weights: ") and says in message and "rnet.pt" in message and "pip download" in message
    assert "\n" not in message


@pytest.mark.parametrize("made", ["missing.whl", "text.whl", "folder"])
def test_a_file_without_weights_is_named_with_the_fix(made, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.whl").write_text("no zip")
    with pytest.raises(RecipeError, match=r"^faces\.weights: .*pip download --no-deps facenet-pytorch==2\.6\.0"):
        Faces(weights=str(tmp_path / made)).check()


def test_finite_weights_of_ones_own_are_accepted(tmp_path):
    own = wheel(tmp_path / "own.whl", rnet=as_file({name: tensor * 1.01 for name, tensor in RNET.items()}))
    Faces(weights=own).check()
    assert Faces(weights=own).identity() != Faces(weights=wheel(tmp_path / "a.whl")).identity()


@pytest.mark.slow
def test_recall_and_precision_on_photos_labelled_by_hand(mtcnn):
    """The default settings. docs/faces.md has the table."""
    folder = real_data("A_captioned/coco_free_licence")
    missed: dict[tuple[str, bool], list[int]] = {}
    wrong = right = 0
    for name, labels in LABELS["photos"].items():
        pixels = pixels_within((folder / f"{name}.jpg").read_bytes(), Faces.side)
        found = [box for box in mtcnn.faces(pixels, Faces.min_face).tolist() if box[4] >= Faces.min_probability]
        for *box, kind in [label for label in labels if label[4] != "unclear"]:
            best = max(found, key=lambda one, box=box: overlap(one, box), default=None)
            is_found = best is not None and overlap(best, box) >= 0.4
            missed.setdefault((kind, box[3] - box[1] >= 20), []).append(not is_found)
            if is_found:
                found.remove(best)
                right += 1
        unclear = [label for label in labels if label[4] == "unclear"]
        wrong += sum(not any(overlap(one, label) > 0.2 or is_inside(one, label) for label in unclear) for one in found)
    counts = {key: (len(values) - sum(values), len(values)) for key, values in missed.items()}
    assert counts[("frontal", True)] == (53, 54)
    assert counts[("profile", True)][0] >= 9 and counts[("frontal", False)][0] >= 4
    assert right >= 66 and wrong <= 5


def overlap(a: list, b: list) -> float:
    """Return the intersection over union of two boxes."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def is_inside(one: list, label: list) -> bool:
    return label[0] <= (one[0] + one[2]) / 2 <= label[2] and label[1] <= (one[1] + one[3]) / 2 <= label[3]
