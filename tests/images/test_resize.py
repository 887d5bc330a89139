"""Sizes and pixels of a resize equal those of img2dataset's Resizer, and boxes are moved along."""

import io
import random

import cv2
import numpy as np
import pytest

from tests.images.pictures import photo, saved
from vlmdata.images.decode import decode
from vlmdata.images.header import read_header
from vlmdata.images.resize import MODES, ResizeRule, resize, transform

pytestmark = pytest.mark.whole

SIZES = [(123, 456), (208, 495), (321, 421), (389, 535), (416, 264), (456, 123), (524, 316)]  # img2dataset's test images


def textured(width: int, height: int) -> np.ndarray:
    smooth = np.random.default_rng(width * 7919 + height).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)


def img2dataset_result(data: bytes, rule: ResizeRule) -> np.ndarray:
    resizer = pytest.importorskip("img2dataset.resizer")
    theirs = resizer.Resizer(rule.size, rule.mode, rule.only_if_bigger, encode_format="png", encode_quality=1)
    written, *_, error = theirs(io.BytesIO(data))
    assert error is None
    return decode(written, max_pixels=10**7).pixels


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("only_if_bigger", [False, True])
def test_the_test_images_of_img2dataset_get_the_sizes_of_its_resizer(mode: str, only_if_bigger: bool) -> None:
    for width, height in SIZES:
        data = saved(photo(width, height), "jpeg")
        assert read_header(data).upright_size == (width, height)
        for size in (100, 256, 420, 456):
            rule = ResizeRule(mode, size, only_if_bigger)  # type: ignore[arg-type]
            expected = img2dataset_result(data, rule)
            assert transform(rule, width, height).output == (expected.shape[1], expected.shape[0]), (width, height, size)


def test_any_size_gets_img2datasets_size_and_pixels() -> None:
    choose = random.Random(0)
    for _ in range(60):
        width, height, size = choose.randint(1, 400), choose.randint(1, 400), choose.randint(1, 300)
        pixels = textured(width, height)
        data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
        for mode in MODES:
            rule = ResizeRule(mode, size, choose.random() < 0.5)  # type: ignore[arg-type]
            expected, ours = img2dataset_result(data, rule), resize(pixels, rule)
            assert ours.shape == expected.shape, (width, height, rule)
            side = min(width, height) if mode in ("keep_ratio", "center_crop") else max(width, height)
            if side > size and mode != "border":  # img2dataset's border is black with its version of albumentations
                assert np.array_equal(ours, expected), (width, height, rule)


def test_a_border_is_white_and_centred() -> None:
    out = resize(np.zeros((10, 20, 3), np.uint8), ResizeRule("border", 20))
    assert out.shape == (20, 20, 3)
    assert np.flatnonzero((out == 0).all(axis=(1, 2))).tolist() == list(range(5, 15))
    assert set(np.unique(out)) == {0, 255}


def test_a_side_of_exactly_the_size_is_not_bigger() -> None:
    rule = ResizeRule("center_crop", 200, only_if_bigger=True)
    assert [transform(rule, 300, side).output for side in (199, 200, 201)] == [(300, 199), (300, 200), (200, 200)]


def test_a_very_thin_image_keeps_one_pixel() -> None:
    assert transform(ResizeRule("keep_ratio_largest", 256), 60000, 1).output == (256, 1)


@pytest.mark.parametrize("mode", ["keep_ratio", "keep_ratio_largest", "center_crop", "border"])
@pytest.mark.parametrize("size", [96, 500])
def test_a_box_frames_the_same_area_after_the_resize(mode: str, size: int) -> None:
    pixels = np.full((240, 360, 3), 255, np.uint8)
    pixels[80:160, 150:250] = (255, 0, 0)
    rule = ResizeRule(mode, size)  # type: ignore[arg-type]
    out = resize(pixels, rule)
    (box,) = transform(rule, 360, 240).boxes([(150, 80, 250, 160)])
    red_y, red_x = np.nonzero((out[:, :, 1] < 128) & (out[:, :, 0] > 128))
    assert box is not None
    assert np.allclose(box, (red_x.min(), red_y.min(), red_x.max() + 1, red_y.max() + 1), atol=1.0)


def test_a_box_outside_the_crop_becomes_none_and_others_keep_their_index() -> None:
    change = transform(ResizeRule("center_crop", 100), 300, 100)
    assert change.boxes([(0, 0, 90, 50), (90, 0, 120, 50), (100, 0, 200, 100)]) == [
        None,
        (0.0, 0.0, 20.0, 50.0),
        (0.0, 0.0, 100.0, 100.0),
    ]


@pytest.mark.parametrize("wrong", [{"mode": "crop"}, {"size": 0}, {"quality": 101}, {"format": "avif"}])
def test_a_wrong_rule_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"mode|size|quality|format"):
        ResizeRule(**wrong)
