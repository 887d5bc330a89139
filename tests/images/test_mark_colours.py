"""Which colours a mark may have on a picture. Distances are compared with those that are computed by the definition."""

import numpy as np
import pytest

from vlmdata.images.mark_colours import COLOURS, NEAR, border_of, distances, is_clear, lab, rare_colours
from vlmdata.images.mark_shapes import blend, box_stroke

BOX = (40.0, 30.0, 140.0, 110.0)


def lab_by_definition(rgb: tuple[int, int, int]) -> np.ndarray:
    """Return L, a and b of an sRGB colour with the white point D65 (IEC 61966-2-1 and CIE 15)."""
    shares = np.array(rgb) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ linear / (0.9505, 1.0, 1.089)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def picture(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((150, 200, 3), colour, np.uint8)


def test_distances_are_those_of_the_definition() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (200, 3), dtype=np.uint8)
    expected = np.array([lab_by_definition(tuple(one)) for one in colours.tolist()])
    assert np.abs(lab(colours) - expected).max() < 1.5
    own = np.array([lab_by_definition(one) for one in COLOURS.values()])
    assert np.abs(np.sqrt(distances(colours)) - np.linalg.norm(expected[:, None] - own[None], axis=2)).max() < 2


def test_the_colours_of_marks_are_far_from_each_other() -> None:
    apart = np.sqrt(distances(np.array(list(COLOURS.values()), np.uint8)))
    assert apart[~np.eye(len(COLOURS), dtype=bool)].min() > NEAR


def test_every_colour_is_rare_on_grey_and_none_that_covers_one_percent() -> None:
    assert rare_colours(picture((128, 128, 128))) == list(COLOURS)
    for name, rgb in COLOURS.items():
        pixels = picture((128, 128, 128))
        pixels[:10, :30] = rgb
        assert name not in rare_colours(pixels)
        pixels[:10, :30] = (128, 128, 128)
        pixels[:5, :5] = rgb
        assert name in rare_colours(pixels)


def test_a_blue_cloth_is_blue_although_it_is_far_from_the_blue_of_marks() -> None:
    cloth = (40, 80, 170)
    assert np.linalg.norm(lab_by_definition(cloth) - lab_by_definition(COLOURS["blue"])) > NEAR
    pixels = picture((128, 128, 128))
    pixels[:40] = cloth
    assert "blue" not in rare_colours(pixels) and "red" in rare_colours(pixels)
    pixels[:40] = (120, 130, 150)  # a grey with a touch of blue
    assert "blue" in rare_colours(pixels)


def test_a_colour_is_clear_only_where_it_differs_from_what_is_under_it() -> None:
    stroke = box_stroke(BOX, 4, 200, 150)
    for name, rgb in COLOURS.items():
        assert not is_clear(picture(rgb), stroke, name, 255)
        assert is_clear(picture((128, 128, 128)), stroke, name, 255)
    half = picture(COLOURS["red"])
    half[:, :90] = 128  # half of the frame lies on red
    assert not is_clear(half, stroke, "red", 255) and is_clear(half, stroke, "green", 255)


def test_a_mark_so_transparent_that_its_colour_has_another_name_is_not_clear() -> None:
    stroke = box_stroke(BOX, 4, 200, 150)
    yellow = picture((255, 255, 0))
    assert is_clear(yellow, stroke, "red", 255) and not is_clear(yellow, stroke, "red", 128)
    drawn = yellow.copy()
    blend(drawn, stroke, COLOURS["red"], 128)
    nearest = list(COLOURS)[int(distances(drawn[29:30, 60]).argmin())]
    assert nearest == "orange"


def test_a_mark_that_covers_no_pixel_is_not_clear() -> None:
    stroke = box_stroke(BOX, 4, 200, 150)
    stroke.mask[:] = 0
    assert not is_clear(picture((0, 0, 0)), stroke, "red", 255)


@pytest.mark.parametrize("name", COLOURS)
def test_a_border_is_far_from_its_colour(name: str) -> None:
    assert np.linalg.norm(lab_by_definition(border_of(name)) - lab_by_definition(COLOURS[name])) > 60
