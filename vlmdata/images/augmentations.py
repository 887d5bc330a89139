"""Applies stored augmentations to pixels, and says where they move boxes.

H height, W width. An augmentation is a list of operations with their final parameters, so it needs no random numbers. The names
are those of torchvision.transforms.functional, and the results equal those of its Pillow backend. No operation changes the size
of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

Pixels = NDArray[np.uint8]
Affine = tuple[float, float, float, float, float, float]  # a, b, c, d, e, f: x' = a·x + b·y + c, y' = d·x + e·y + f
SAME: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
FILL = (128, 128, 128)  # colour of parts without pixels; Cubuk et al. 2020, whose RandAugment code fills with 128
MOST_OPERATIONS = 24  # of one view, because stored views may come from strangers; the step `augment` draws at most 19
MOST_CHARACTERS = 200  # of one operation
GRID = 16  # points along each side of a box, of which the visible ones are counted
SOME = 1000  # boxes that are examined at a time, to limit memory
APPLYING_BYTES = 17  # per pixel of the image: the peak memory of `apply` beside its input; `hue` needs the most

# The names of the operations, with the range of each value.
VALUES: dict[str, tuple[tuple[float, float], ...]] = {
    "resized_crop": ((0, 1), (0, 1), (0, 1), (0, 1)),  # x0, y0, x1, y1: the part that fills the picture, as fractions of it
    "hflip": (),
    "vflip": (),
    "rotate": ((-180, 180),),  # degrees counter-clockwise around the centre
    "shear_x": ((-1, 1),),  # a point moves to the left by this times its distance from the upper edge, in pixels
    "shear_y": ((-1, 1),),  # a point moves up by this times its distance from the left edge, in pixels
    "translate_x": ((-1, 1),),  # fraction of the width, to the right; whole pixels, rounded towards 0
    "translate_y": ((-1, 1),),  # fraction of the height, down; whole pixels, rounded towards 0
    "brightness": ((0, 10),),  # factor; 1 changes nothing
    "contrast": ((0, 10),),
    "saturation": ((0, 10),),  # 0: grey
    "sharpness": ((0, 10),),  # 0: blurred
    "hue": ((-0.5, 0.5),),  # fraction of the circle of colours
    "grayscale": (),
    "posterize": ((1, 8),),  # bits that each channel keeps
    "solarize": ((0, 255),),  # values from this on are inverted
    "autocontrast": (),
    "equalize": (),
    "invert": (),
}
# Operations after which a part of the image may lie outside of the picture, and those that change the hue of colours.
MOVING = frozenset({"resized_crop", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"})
FLIPPING = frozenset({"hflip", "vflip"})
RECOLOURING = frozenset({"saturation", "hue", "grayscale", "posterize", "solarize", "autocontrast", "equalize", "invert"})


@dataclass(frozen=True)
class Operation:
    """One operation of an augmentation. `VALUES` says what its values mean."""

    name: str
    values: tuple[float, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether the operation moves pixels, and so boxes."""
        return self.name in MOVING or self.name in FLIPPING

    def __str__(self) -> str:
        """Return the operation as it is stored in a sample's JSON: its name and its values, separated by spaces."""
        return " ".join([self.name, *(f"{value:g}" for value in self.values)])


def read_operations(view: Any) -> tuple[Operation, ...]:
    """Return the operations of a stored view, such as ["hflip", "rotate -3.2"].

    Raises ValueError, which says what is wrong, for any other value.
    """
    if not isinstance(view, list) or len(view) > MOST_OPERATIONS:
        raise ValueError(f"a view is not a list of at most {MOST_OPERATIONS} operations")
    return tuple(map(_read_operation, view))


def _read_operation(stored: Any) -> Operation:
    name, *texts = stored.split() if isinstance(stored, str) and len(stored) <= MOST_CHARACTERS else [""]
    if name not in VALUES:
        raise ValueError(f"{str(stored)[:100]!r} is no operation")
    limits, values = VALUES[name], tuple(map(float, texts))
    is_right = len(values) == len(limits) and all(
        low <= value <= high for value, (low, high) in zip(values, limits, strict=True)
    )
    if not is_right or (name == "resized_crop" and not (values[0] < values[2] and values[1] < values[3])):
        raise ValueError(f"{stored!r} has wrong values")
    return Operation(name, values)


def apply(pixels: Pixels, operations: Sequence[Operation]) -> Pixels:
    """Return (H, W, 3) uint8 pixels after all operations, in the same size. Without operations, the same array is returned."""
    if not operations:
        return pixels
    image = Image.fromarray(pixels)
    for operation in operations:
        image = _CHANGES[operation.name](image, *operation.values)
    return np.array(image)


def affine(operations: Sequence[Operation], width: int, height: int) -> Affine:
    """Return where `apply` moves the points of an image of this size in pixels, from fractions to fractions of the image."""
    a, b, c, d, e, f = SAME
    for operation in operations:
        if operation.moves:
            g, h, i, j, k, m = _moves(operation, width, height)
            a, b, c, d, e, f = g * a + h * d, g * b + h * e, g * c + h * f + i, j * a + k * d, j * b + k * e, j * c + k * f + m
    return a, b * height / width, c / width, d * width / height, e, f / height


def visible_share(operations: Sequence[Operation], box: Sequence[float], width: int, height: int) -> float:
    """Return how much of a box a view shows: see `visible_shares`."""
    return float(visible_shares(operations, [box], width, height)[0])


def visible_shares(
    operations: Sequence[Operation], boxes: Sequence[Sequence[float]], width: int, height: int
) -> NDArray[np.float64]:
    """Return how much of each box (x0, y0, x1, y1 as fractions of the image) a view shows, as a share of its part in the image.

    A part that one operation moves out of the picture is lost, even if a later one moves its place back. The share is counted
    on a grid of 16 x 16 points. It is 0 for a box without a part in the image. The boxes are examined together, because the
    JSON of a stranger may have a million.
    """
    moving = [affine([operation], width, height) for operation in operations if operation.moves]
    found = [_visible(moving, np.array(boxes[at : at + SOME], np.float64)) for at in range(0, len(boxes), SOME)]
    return np.concatenate([np.zeros(0), *found])


def _visible(moving: Sequence[Affine], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    x0, y0, x1, y1 = boxes.clip(0, 1).T
    has_area = (x0 < x1) & (y0 < y1)
    if not moving:
        return has_area.astype(np.float64)
    steps = (np.arange(GRID) + 0.5) / GRID
    x = np.tile(x0[:, None] + steps * (x1 - x0)[:, None], GRID)  # (boxes, GRID * GRID)
    y = np.repeat(y0[:, None] + steps * (y1 - y0)[:, None], GRID, axis=1)
    visible = np.repeat(has_area[:, None], GRID * GRID, axis=1)
    for a, b, c, d, e, f in moving:
        x, y = a * x + b * y + c, d * x + e * y + f
        visible &= (x > 0) & (x < 1) & (y > 0) & (y < 1)
    return np.asarray(visible.mean(axis=1))


def _moves(operation: Operation, width: int, height: int) -> Affine:
    """Return where an operation moves the points of an image, in pixels."""
    match operation.name, operation.values:
        case "hflip", _:
            return -1.0, 0.0, float(width), 0.0, 1.0, 0.0
        case "vflip", _:
            return 1.0, 0.0, 0.0, 0.0, -1.0, float(height)
        case "shear_x", (by,):
            return 1.0, -by, 0.0, 0.0, 1.0, 0.0
        case "shear_y", (by,):
            return 1.0, 0.0, 0.0, -by, 1.0, 0.0
        case "translate_x", (by,):
            return 1.0, 0.0, float(int(by * width)), 0.0, 1.0, 0.0
        case "translate_y", (by,):
            return 1.0, 0.0, 0.0, 0.0, 1.0, float(int(by * height))
        case "rotate", (angle,):
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = width / 2, height / 2
            return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y
    left, top, right, bottom = crop_box(operation.values, width, height)
    x_scale, y_scale = width / (right - left), height / (bottom - top)
    return x_scale, 0.0, -left * x_scale, 0.0, y_scale, -top * y_scale


def crop_box(values: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return the part that a `resized_crop` shows in whole pixels: left, top, right and bottom. It has at least one pixel."""
    left, top = min(round(values[0] * width), width - 1), min(round(values[1] * height), height - 1)
    return left, top, max(left + 1, round(values[2] * width)), max(top + 1, round(values[3] * height))


def _resized_crop(image: Image.Image, *values: float) -> Image.Image:
    return image.crop(crop_box(values, *image.size)).resize(image.size, Image.Resampling.BICUBIC)


def _moved(image: Image.Image, *backwards: float) -> Image.Image:
    """Return the image moved. `backwards` maps the points of the result to those of the image, in pixels."""
    return image.transform(image.size, Image.Transform.AFFINE, backwards, Image.Resampling.BILINEAR, fillcolor=FILL)


def _hue(image: Image.Image, by: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = np.array(hue) + np.int32(by * 255).astype(np.uint8)  # beyond 255 the circle begins again
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


_CHANGES: dict[str, Callable[..., Image.Image]] = {
    "resized_crop": _resized_crop,
    "hflip": ImageOps.mirror,
    "vflip": ImageOps.flip,
    "rotate": lambda image, angle: image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=FILL),
    "shear_x": lambda image, by: _moved(image, 1, by, 0, 0, 1, 0),
    "shear_y": lambda image, by: _moved(image, 1, 0, 0, by, 1, 0),
    "translate_x": lambda image, by: _moved(image, 1, 0, -int(by * image.width), 0, 1, 0),
    "translate_y": lambda image, by: _moved(image, 1, 0, 0, 0, 1, -int(by * image.height)),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "hue": _hue,
    "grayscale": lambda image: image.convert("L").convert("RGB"),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": ImageOps.solarize,
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "invert": ImageOps.invert,
}
