"""Operations equal those of torchvision's Pillow backend, boxes go where the pixels go, and hostile views are refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.images.pictures import photo
from tests.real_data import real_data
from vlmdata.grounding.frame import Frame
from vlmdata.images.augmentations import (
    FILL,
    FLIPPING,
    MOST_OPERATIONS,
    MOVING,
    VALUES,
    Operation,
    affine,
    apply,
    crop_box,
    read_operations,
    visible_share,
)
from vlmdata.images.draw_augmentations import (
    RANDAUGMENT,
    RECOLOURING,
    SMALL_ANGLE,
    WHOLE_SCENE,
    Forbidden,
    Ranges,
    draw_view,
    generator_of,
)

GEOMETRY = sorted(MOVING | FLIPPING)
STRONG = Ranges((0.3, 1), (0.75, 4 / 3), 0.5, 0.5, 90, 0.5, 0.5, 0.5, 0.2, 0.2, 4, 20)


def example(name: str) -> Operation:
    given = {
        "resized_crop": (0.1, 0.2, 0.75, 0.9), "rotate": (-17.3,), "shear_x": (0.21,), "shear_y": (-0.13,),
        "translate_x": (0.153,), "translate_y": (-0.2,), "brightness": (1.37,), "contrast": (0.6,), "saturation": (0.4,),
        "sharpness": (1.8,), "hue": (-0.13,), "posterize": (5.0,), "solarize": (178.5,),
    }  # fmt: skip
    return Operation(name, given.get(name, ()))


def by_torchvision(image: Image.Image, operation: Operation) -> Image.Image:
    functional = pytest.importorskip("torchvision.transforms.functional", reason="torchvision is not installed")
    smooth, sharp = functional.InterpolationMode.BILINEAR, functional.InterpolationMode.BICUBIC
    moved = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "interpolation": smooth, "fill": list(FILL)}
    width, height = image.size
    value = operation.values[0] if operation.values else 0.0

    def shear(axis: int) -> Image.Image:
        angles = [0.0, 0.0]
        angles[axis] = math.degrees(math.atan(value))
        return functional.affine(image, **{**moved, "shear": angles}, center=[0, 0])

    def crop() -> Image.Image:
        left, top, right, bottom = crop_box(operation.values, width, height)
        return functional.resized_crop(image, top, left, bottom - top, right - left, [height, width], sharp)

    own: dict[str, Callable[[], Image.Image]] = {
        "resized_crop": crop,
        "hflip": lambda: functional.hflip(image),
        "vflip": lambda: functional.vflip(image),
        "rotate": lambda: functional.rotate(image, value, smooth, fill=list(FILL)),
        "shear_x": lambda: shear(0),
        "shear_y": lambda: shear(1),
        "translate_x": lambda: functional.affine(image, **{**moved, "translate": [int(value * width), 0]}),
        "translate_y": lambda: functional.affine(image, **{**moved, "translate": [0, int(value * height)]}),
        "brightness": lambda: functional.adjust_brightness(image, value),
        "contrast": lambda: functional.adjust_contrast(image, value),
        "saturation": lambda: functional.adjust_saturation(image, value),
        "sharpness": lambda: functional.adjust_sharpness(image, value),
        "hue": lambda: functional.adjust_hue(image, value),
        "grayscale": lambda: functional.to_grayscale(image, 3),
        "posterize": lambda: functional.posterize(image, int(value)),
        "solarize": lambda: functional.solarize(image, value),
        "autocontrast": lambda: functional.autocontrast(image),
        "equalize": lambda: functional.equalize(image),
        "invert": lambda: functional.invert(image),
    }
    return own[operation.name]()


def photos() -> list[Path]:
    return sorted(real_data("A_captioned/coco_free_licence").glob("*.jpg"))[:6]


@pytest.mark.parametrize("name", VALUES)
def test_each_operation_equals_torchvisions_on_real_photos(name: str) -> None:
    for path in photos():
        image = Image.open(path).convert("RGB")
        ours = apply(np.asarray(image), [example(name)])
        differences = np.abs(ours.astype(int) - np.asarray(by_torchvision(image, example(name))).astype(int))
        if name.startswith("shear"):  # torchvision goes through an angle, which changes the last digit of the shear
            assert differences.max() <= 1
        else:
            assert differences.max() == 0


@pytest.mark.parametrize("name", VALUES)
def test_each_operation_changes_a_photo_but_not_its_size(name: str) -> None:
    pixels = photo(90, 70)
    before = pixels.copy()
    changed = apply(pixels, [example(name)])
    assert changed.shape == (70, 90, 3) and changed.dtype == np.uint8 and not np.array_equal(changed, pixels)
    assert np.array_equal(pixels, before) and changed.flags.writeable


def test_a_view_without_operations_returns_the_same_array() -> None:
    pixels = photo(20, 10)
    assert apply(pixels, []) is pixels


def found_box(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box around the white pixels as fractions, with half of the brightness as the edge."""
    rows, columns = np.nonzero(pixels[..., 0] > 190)
    height, width = pixels.shape[:2]
    return columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height


def rectangle(width: int, height: int) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = round(0.35 * width), round(0.4 * height), round(0.6 * width), round(0.7 * height)
    pixels[top:bottom, left:right] = 255
    return pixels, (left / width, top / height, right / width, bottom / height)


@pytest.mark.parametrize("size", [(400, 300), (301, 500)])
@pytest.mark.parametrize("names", [*[[name] for name in GEOMETRY], ["resized_crop", "hflip", "rotate", "shear_x"], GEOMETRY])
def test_a_drawn_rectangle_is_found_where_the_frame_says(names: list[str], size: tuple[int, int]) -> None:
    pixels, box = rectangle(*size)
    operations = [example(name) for name in names]
    frame = Frame(*size).then(*size, affine(operations, *size))
    expected, visible = frame.box(box) or pytest.fail("the box is outside")
    assert visible > 0.8 and frame.to_picture != Frame(*size).to_picture
    found = found_box(apply(pixels, operations))
    if not {"rotate", "shear_x", "shear_y"} & set(names):
        tolerance = 1.01  # a pixel, because a bicubic edge is one or two pixels wide
    else:
        tolerance = 3.0  # the corners of a turned rectangle are thin, so that their pixels are dark
    assert np.abs((np.array(found) - expected) * [*size, *size]).max() <= tolerance


@given(st.integers(0, 10_000), st.integers(20, 800), st.integers(20, 800))
@settings(max_examples=150, deadline=None)
def test_an_affine_moves_points_as_its_operations_do_one_after_another(number: int, width: int, height: int) -> None:
    random = generator_of("test", number)
    view = [one for one in draw_view(random, STRONG, Forbidden(), lambda _: True) if one.name in GEOMETRY]
    together = Frame(width, height).then(width, height, affine(view, width, height))
    frame = Frame(width, height)
    for operation in view:
        frame = frame.then(width, height, affine([operation], width, height))
    assert together.to_picture == pytest.approx(frame.to_picture, abs=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_drawn_view_keeps_what_it_must_keep_visible(number: int) -> None:
    size, box = (320, 200), (0.05, 0.6, 0.3, 0.95)
    view = draw_view(generator_of(number), STRONG, Forbidden(), lambda drawn: visible_share(drawn, box, *size) >= 0.9)
    pixels = np.zeros((200, 320, 3), np.uint8)
    pixels[120:190, 16:96] = 255
    shown = apply(pixels, [one for one in view if one.moves])
    a, b, _, d, e, _ = affine(view, *size)
    assert (shown[..., 0] > 190).sum() >= 0.8 * 70 * 80 * abs(a * e - b * d), "the pixels of the box are there"


def test_what_an_operation_cut_stays_lost_when_a_later_one_moves_its_place_back() -> None:
    away_and_back = [Operation("translate_x", (0.5,)), Operation("translate_x", (-0.5,))]
    assert visible_share(away_and_back, (0.6, 0.1, 0.9, 0.5), 100, 100) == 0
    assert visible_share(away_and_back, (0.25, 0.1, 0.75, 0.5), 100, 100) == 0.5
    assert visible_share(away_and_back, (0.1, 0.1, 0.4, 0.5), 100, 100) == 1
    assert visible_share([], (-0.5, 0, 0.5, 1), 100, 100) == 1, "only the part in the image counts"
    assert visible_share([], (0.5, 0, 0.5, 1), 100, 100) == visible_share([], (1.1, 0, 1.5, 1), 100, 100) == 0


def views(forbidden: Forbidden, ranges: Ranges = STRONG) -> list[Operation]:
    drawn = [draw_view(generator_of("views", n), ranges, forbidden, lambda _: True) for n in range(150)]
    return [one for view in drawn for one in view]


def test_without_rules_every_operation_is_drawn() -> None:
    assert {one.name for one in views(Forbidden())} == set(VALUES) - {"invert"}
    assert any(abs(one.values[0]) > SMALL_ANGLE for one in views(Forbidden()) if one.name == "rotate")


def test_forbidden_operations_are_never_drawn() -> None:
    assert "hflip" not in {one.name for one in views(Forbidden(flip=True))}
    turned = views(Forbidden(turn=True))
    assert "vflip" not in {one.name for one in turned}
    assert all(abs(one.values[0]) <= SMALL_ANGLE for one in turned if one.name == "rotate")
    assert not RECOLOURING & {one.name for one in views(Forbidden(colour=True))}
    assert not (MOVING | FLIPPING) & {one.name for one in views(Forbidden(geometry=True))}
    crops = [one for one in views(Forbidden(crop=True)) if one.name == "resized_crop"]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one.values for one in crops)]
    assert crops and min(areas) > WHOLE_SCENE - 0.001
    assert not {"translate_x", "translate_y"} & {one.name for one in views(Forbidden(crop=True))}
    assert "resized_crop" not in {one.name for one in views(Forbidden(crop=True), Ranges(crop_scale=(0.2, 0.5)))}


def test_crops_have_the_area_and_shape_of_their_ranges() -> None:
    crops = [one.values for one in views(Forbidden(), Ranges(crop_scale=(0.2, 0.5), crop_ratio=(0.8, 1.25)))]
    wide, high = np.array([x1 - x0 for x0, _, x1, _ in crops]), np.array([y1 - y0 for _, y0, _, y1 in crops])
    assert (wide * high > 0.199).all() and (wide * high < 0.501).all()
    assert (wide / high > 0.799).all() and (wide / high < 1.251).all()
    assert wide.std() > 0.05 and np.std([x0 for x0, *_ in crops]) > 0.1


def test_randaugment_draws_torchvisions_operations_at_its_magnitudes() -> None:
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment", reason="torchvision is not installed")
    names = {
        "Identity": "identity", "ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x",
        "TranslateY": "translate_y", "Rotate": "rotate", "Brightness": "brightness", "Color": "saturation",
        "Contrast": "contrast", "Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize",
        "AutoContrast": "autocontrast", "Equalize": "equalize",
    }  # fmt: skip
    space: dict[str, Any] = autoaugment.RandAugment()._augmentation_space(31, (331, 331))
    assert sorted(names[name] for name in space) == sorted(RANDAUGMENT)
    for magnitude in (0, 3, 9, 17, 30):
        drawn = views(Forbidden(), Ranges(randaugment_ops=3, randaugment_magnitude=magnitude))
        for name, (magnitudes, is_signed) in space.items():
            found = {one.values[0] for one in drawn if one.name == names[name] and one.values}
            if magnitudes.ndim == 0:
                assert not found
                continue
            value = float(magnitudes[magnitude])
            value = value / 331 if name.startswith("Translate") else value
            middle = 1.0 if names[name] in ("brightness", "saturation", "contrast", "sharpness") else 0.0
            wanted = {middle + value, middle - value} if is_signed else {value}
            assert sorted(found) == pytest.approx(sorted(wanted), abs=1e-4), name


def test_stored_operations_are_read_as_they_were_written() -> None:
    operations = tuple(map(example, VALUES))
    assert read_operations([str(one) for one in operations]) == operations


@pytest.mark.parametrize(
    "view",
    [
        None, "hflip", {}, [1], [""], [" "], ["explode"], [["hflip"]], ["hflip 1"], ["rotate nan"], ["rotate inf"],
        ["rotate 181"],
        ["rotate x"], ["rotate"], ["brightness 1e400"], ["resized_crop 0.5 0 0.5 1"], ["resized_crop 0 0 1"],
        ["rotate " + "0" * 300], ["hflip"] * (MOST_OPERATIONS + 1),
    ],
)  # fmt: skip
def test_a_view_of_another_form_is_refused(view: Any) -> None:
    with pytest.raises(ValueError):
        read_operations(view)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_the_smallest_images_are_augmented_too(size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    for name in VALUES:
        assert apply(pixels, [example(name)]).shape == pixels.shape
        assert all(map(math.isfinite, affine([example(name)], *size)))
    assert apply(pixels, [Operation("resized_crop", (0.999, 0.999, 1.0, 1.0))]).shape == pixels.shape
