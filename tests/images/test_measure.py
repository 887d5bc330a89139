"""Measures of blank, near-blank and blurred images equal those of references."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from tests.images.pictures import photo
from vlmdata.images.measure import entropy, grey_of, sharpness, spread, variance


def test_a_blank_picture_measures_zero() -> None:
    blank = np.full((40, 60, 3), 200, np.uint8)
    assert (spread(blank), entropy(blank), sharpness(blank)) == (0.0, 0.0, 0.0)


def test_two_levels_are_one_bit() -> None:
    halves = np.zeros((10, 10, 3), np.uint8)
    halves[:5] = 255
    assert (entropy(halves), spread(halves)) == (1.0, 127.5)


def test_two_colours_of_one_brightness_are_not_blank() -> None:
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:5], pixels[5:] = (255, 0, 0), (0, 130, 0)
    assert variance(grey_of(pixels)) < 1 < spread(pixels)


def test_variance_equals_numpys() -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, 5000)
    assert variance(values) == pytest.approx(values.var(), rel=1e-12)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    pixels = photo(70, 50)
    reference = ndimage.laplace(grey_of(pixels).astype(np.int64), mode="mirror")
    assert sharpness(pixels) == pytest.approx(reference.var(), rel=1e-12)


def test_blurring_lowers_the_sharpness() -> None:
    pixels = photo(300, 200)
    measured = [sharpness(pixels)] + [sharpness(cv2.GaussianBlur(pixels, (0, 0), sigma)) for sigma in (1, 2, 4)]
    assert measured == sorted(measured, reverse=True) and measured[0] > 20 * measured[-1]
