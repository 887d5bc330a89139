"""Regions of text are stored in 16 bytes each, counted as a share of the area, and filled with the colour around them."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import exif, photo, saved
from vlmdata.images.decode import decode
from vlmdata.images.text_regions import covered_share, fill_regions, mask_of, masked_image, packed, unpacked


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_stored_regions_are_exact_to_a_65535th_of_a_side():
    regions = np.random.default_rng(0).random((50, 4, 2))
    assert len(packed(regions)) == 16 * 50
    assert np.abs(unpacked(packed(regions)) - regions).max() <= 0.5 / 65_535
    assert unpacked(packed(np.zeros((0, 4, 2)))).shape == (0, 4, 2)


def test_corners_outside_of_the_image_are_moved_to_its_edge():
    assert unpacked(packed(np.array([box(-0.5, -3, 1.5, 9)]))).tolist() == [box(0, 0, 1, 1)]
    assert covered_share(np.array([box(-0.5, 0.5, 1.5, 9)]), 640, 480) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("size", [(640, 480), (90, 33), (4000, 3000), (7, 7)])
def test_the_share_is_that_of_the_union(size):
    left, right, inner = box(0, 0, 0.5, 0.5), box(0.25, 0, 0.75, 0.5), box(0.1, 0.1, 0.2, 0.2)
    assert covered_share(np.array([left, right, inner]), *size) == pytest.approx(0.375, abs=0.005)
    assert covered_share(np.zeros((0, 4, 2)), *size) == 0
    assert covered_share(np.array([box(0, 0, 1, 1)]), *size) == 1


def test_a_rotated_region_covers_its_own_pixels_only():
    diamond = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]]
    mask = mask_of(np.array([diamond]), 101, 101)
    assert mask.mean() == pytest.approx(0.5, abs=0.01)
    assert (mask[0, 0], mask[50, 50], mask[100, 100]) == (0, 1, 0)


def test_each_region_gets_the_colour_around_it_and_no_other_pixel_changes():
    pixels = np.full((100, 200, 3), (10, 20, 30), np.uint8)
    pixels[:, 100:] = (200, 100, 0)
    for at in (20, 140):
        pixels[40:60, at : at + 40 : 2] = 255  # two texts
    regions = np.array([box(0.1, 0.4, 0.3, 0.6), box(0.7, 0.4, 0.9, 0.6)])
    filled = fill_regions(pixels, regions)
    assert (filled[:, :100] == (10, 20, 30)).all() and (filled[:, 100:] == (200, 100, 0)).all()
    assert (pixels[50, 20] == 255).all(), "the given pixels are not changed"
    noise = photo(120, 80)
    outside = mask_of(regions, 120, 80) == 0
    assert (fill_regions(noise, regions)[outside] == noise[outside]).all()


def test_neighbouring_regions_do_not_lend_each_other_their_text():
    pixels = np.full((100, 100, 3), 90, np.uint8)
    pixels[40:60, 10:90] = 255
    regions = np.array([box(0.1, 0.4, 0.5, 0.6), box(0.5, 0.4, 0.9, 0.6)])
    assert (fill_regions(pixels, regions) == 90).all()


def test_edges_of_letters_outside_of_the_region_do_not_tint_it():
    pixels = np.full((60, 100, 3), (200, 0, 40), np.uint8)
    pixels[18:42, 20:80:3] = 255  # letters that are two pixels higher than the region at each side
    filled = fill_regions(pixels, np.array([box(0.2, 20 / 60, 0.8, 40 / 60)]))
    assert (filled[20:40, 20:80] == (200, 0, 40)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 30)])
def test_a_region_of_the_whole_image_gets_the_median_of_its_own_pixels(size):
    pixels = photo(*size)
    filled = fill_regions(pixels, np.array([box(0, 0, 1, 1)]))
    assert (filled == np.round(np.median(pixels.reshape(-1, 3), axis=0))).all()


def test_a_masked_image_is_lossless_outside_of_its_regions():
    pixels = photo(80, 60)
    regions = np.array([box(0.25, 0.25, 0.5, 0.5)])
    masked = np.asarray(Image.open(io.BytesIO(masked_image(saved(pixels, "PNG"), regions))))
    assert (masked == fill_regions(pixels, regions)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_masked_upright(orientation):
    data = saved(photo(80, 60), "JPEG", exif=exif(orientation))
    regions = np.array([box(0, 0, 0.25, 0.25)])
    masked = decode(masked_image(data, regions)).pixels
    assert (masked == fill_regions(decode(data).pixels, regions)).all()


def test_an_image_without_regions_or_that_is_broken_stays_as_it_is():
    data = saved(photo(8, 8), "PNG")
    assert masked_image(data, np.zeros((0, 4, 2))) is data
    assert masked_image(data[:50], np.array([box(0, 0, 1, 1)])) == data[:50]
