import io

import numpy as np
import pytest
from PIL import Image

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.rows import captions
from vlmdata.steps.image_detail import ImageDetail


class Bytes:
    """A partition whose blob is a list of images."""

    def __init__(self, images: list[bytes]):
        self.images = images

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        return self.images[offset]


def run(step: ImageDetail, images: list[bytes]):
    count = len(images)
    rows = captions(["a"] * count, blob=["b"] * count, offset=list(range(count)), size=[len(one) for one in images])
    return step.run(rows, Bytes(images))


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3))
HALVES = np.zeros((100, 100, 3))
HALVES[:, 50:] = 10  # a standard deviation of exactly 5


def test_blank_images_are_dropped_and_one_at_the_limit_is_kept():
    rows = run(ImageDetail(), [png(np.full((50, 50, 3), 255)), png(HALVES), png(HALVES * 0.9), png(NOISE), b"no image"])
    assert rows["reason"].to_pylist() == ["blank", None, "blank", None, None]
    assert rows["image_detail.spread"].to_pylist()[:2] == [[0.0, None], [5.0, None]]
    assert rows["image_detail.spread"].to_pylist()[4] == [None, None]


def test_an_image_of_two_levels_has_one_bit_of_entropy():
    rows = run(ImageDetail(min_entropy=1.0), [png(HALVES)])
    assert (rows["image_detail.entropy"].to_pylist(), rows["reason"].to_pylist()) == ([[1.0, None]], [None])
    assert run(ImageDetail(min_entropy=1.001), [png(HALVES)])["reason"].to_pylist() == ["flat"]


def test_a_changed_threshold_measures_nothing_again():
    rows = run(ImageDetail(), [png(NOISE)])
    value = rows["image_detail.sharpness"].to_pylist()[0][0]
    assert ImageDetail(min_sharpness=value).decide(rows)["reason"].to_pylist() == [None]
    assert ImageDetail(min_sharpness=value + 1).decide(rows)["reason"].to_pylist() == ["blurred"]


@pytest.mark.parametrize(("find", "count"), [(fixture, 12), pytest.param(real_data, 30, marks=pytest.mark.slow)])
def test_photos_are_sharper_than_their_blurred_copies(find, count):
    import cv2

    paths = sorted(find("A_captioned/coco_free_licence").glob("*.jpg"))[:count]
    sharp = [path.read_bytes() for path in paths]
    soft = [png(cv2.GaussianBlur(np.asarray(Image.open(path).convert("RGB")), (0, 0), 6)) for path in paths]
    values = [row[0] for row in run(ImageDetail(), sharp + soft)["image_detail.sharpness"].to_pylist()]
    assert all(a > 4 * b for a, b in zip(values[:count], values[count:], strict=True))
    assert run(ImageDetail(), sharp)["drop"].null_count == count


@pytest.mark.parametrize("side", [64, 256])
def test_the_size_at_which_images_are_measured_is_part_of_the_identity(side):
    assert ImageDetail(side=side).measured_by == ("side",)
    big = png(np.kron(NOISE[:100, :100], np.ones((8, 8, 1))))
    (value,) = run(ImageDetail(side=side), [big])["image_detail.sharpness"].to_pylist()
    assert value[0] > 0
