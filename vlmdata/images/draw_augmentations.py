"""Draws the augmentations of an image: which operations, and their parameters, within ranges and without forbidden ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlmdata.images.augmentations import FLIPPING, MOVING, RECOLOURING, Operation

TRIES = 10  # draws until the boxes that must stay visible are visible
SMALL_ANGLE = 15.0  # degrees; a rotation within this leaves left on the left and above above
WHOLE_SCENE = 0.9  # a crop of at least this share of the area keeps the places of things in the scene; open_clip's range
DIGITS = {"rotate": 2, "solarize": 1, "resized_crop": 4, "translate_x": 4, "translate_y": 4}  # 3 of all other values

# RandAugment: the values at the greatest magnitude, 30. The sign of the first five is drawn; factors are 1 plus or minus the
# value. Cubuk et al. 2020 in torchvision's form, whose magnitudes have 31 bins.
STRONGEST = 30
_SIGNED = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0}
_FACTORS = dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), 0.9)
_OTHERS = ("posterize", "solarize", "autocontrast", "equalize")
IDENTITY = "identity"
RANDAUGMENT = (IDENTITY, *_SIGNED, *_FACTORS, *_OTHERS)


@dataclass(frozen=True)
class Ranges:
    """What may be drawn. The names are those of torchvision's transforms; see the parameters of the step `augment`."""

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    vertical_flip: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    randaugment_ops: int = 0
    randaugment_magnitude: int = 9


@dataclass(frozen=True)
class Forbidden:
    """What a view must not do, because it would make a text of the image wrong."""

    flip: bool = False
    turn: bool = False  # vertical flips, and rotations beyond SMALL_ANGLE
    colour: bool = False
    crop: bool = False  # crops below WHOLE_SCENE, and translations
    geometry: bool = False  # everything that moves pixels

    def allows(self, name: str) -> bool:
        """Return whether a view may contain the operation with some parameters."""
        if name in MOVING or name in FLIPPING:
            is_wrong = {"hflip": self.flip, "vflip": self.turn}.get(name, False)
            return not (self.geometry or is_wrong or (self.crop and name.startswith("translate")))
        return not (self.colour and name in RECOLOURING)


def generator_of(*what: object) -> np.random.Generator:
    """Return a random generator that depends only on these values: strings and integers."""
    digest = hashlib.blake2b(repr(what).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def draw_view(
    random: np.random.Generator,
    ranges: Ranges,
    forbidden: Forbidden,
    keeps: Callable[[Sequence[Operation]], bool],
) -> list[Operation]:
    """Return one view of an image.

    `keeps` says whether the boxes that must stay visible are visible in a view. If not, another view is drawn. After TRIES
    draws, the operations that hide parts of an image are left out.
    """
    view: list[Operation] = []
    for _ in range(TRIES):
        view = _drawn(random, ranges, forbidden)
        if keeps(view):
            return view
    return [one for one in view if one.name not in MOVING]


def _drawn(random: np.random.Generator, ranges: Ranges, forbidden: Forbidden) -> list[Operation]:
    view = _crop(random, ranges, forbidden)
    view += [Operation("hflip")] if random.random() < ranges.flip else []
    view += [Operation("vflip")] if random.random() < ranges.vertical_flip else []
    widest = min(ranges.rotate, SMALL_ANGLE) if forbidden.turn else ranges.rotate
    view += [_operation("rotate", random.uniform(-widest, widest))] if widest else []
    colours = [name for name in ("brightness", "contrast", "saturation", "hue") if getattr(ranges, name)]
    for number in random.permutation(len(colours)):  # ColorJitter draws the order too
        name, most = colours[number], getattr(ranges, colours[number])
        middle = 0.0 if name == "hue" else 1.0
        least = max(0.0, middle - most) if middle else -most
        view.append(_operation(name, random.uniform(least, middle + most)))
    view += [Operation("grayscale")] if random.random() < ranges.grayscale else []
    view = [one for one in view if forbidden.allows(one.name)]
    return view + _randaugment(random, ranges, forbidden)


def _crop(random: np.random.Generator, ranges: Ranges, forbidden: Forbidden) -> list[Operation]:
    least, most = ranges.crop_scale
    if forbidden.crop:
        least = max(least, WHOLE_SCENE)
    if not least <= most or ranges.crop_scale == (1.0, 1.0):
        return []
    area = random.uniform(least, most)
    # The width and the height of the part are sqrt(area · ratio) and sqrt(area / ratio), and at most 1.
    limits = [min(max(math.log(edge), math.log(area)), -math.log(area)) for edge in ranges.crop_ratio]
    ratio = math.exp(random.uniform(limits[0], limits[1]))
    wide, high = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    left, top = random.uniform(0, 1 - wide), random.uniform(0, 1 - high)
    return [_operation("resized_crop", left, top, left + wide, top + high)]


def _randaugment(random: np.random.Generator, ranges: Ranges, forbidden: Forbidden) -> list[Operation]:
    names = [name for name in RANDAUGMENT if forbidden.allows(name)]
    drawn = [names[random.integers(len(names))] for _ in range(ranges.randaugment_ops)]
    return [_strong(name, ranges.randaugment_magnitude, random, forbidden) for name in drawn if name != IDENTITY]


def _strong(name: str, magnitude: int, random: np.random.Generator, forbidden: Forbidden) -> Operation:
    """Return an operation of RandAugment at a magnitude of 0 to STRONGEST."""
    share = magnitude / STRONGEST
    sign = 1.0 if random.random() < 0.5 else -1.0
    if name in _SIGNED:
        value = _SIGNED[name] * share
        value = min(value, SMALL_ANGLE) if name == "rotate" and forbidden.turn else value
        return _operation(name, sign * value)
    if name in _FACTORS:
        return _operation(name, 1.0 + sign * _FACTORS[name] * share)
    if name == "posterize":
        return _operation(name, 8 - round(4 * share))
    return _operation(name, *([255.0 * (1 - share)] if name == "solarize" else []))


def _operation(name: str, *values: float) -> Operation:
    """Return an operation with rounded values, as it is stored."""
    return Operation(name, tuple(round(value, DIGITS.get(name, 3)) + 0.0 for value in values))  # without the minus of -0.0
