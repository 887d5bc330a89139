"""Milliseconds that each stored operation takes on a photo, beside torchvision's function on the same Pillow image.

    python -m bench.augmentations [FOLDER]

Photos of FOLDER (coco_free_licence, 640 pixels on the long side), 20 of them, one thread. The time of `apply` includes the
conversion from and to an array; torchvision's time does not. "difference" is the greatest difference of a value of the results.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional

from bench.images import DATA
from vlmdata.images.augmentations import FILL, VALUES, Operation, apply, crop_box
from vlmdata.images.decode import decode
from vlmdata.images.draw_augmentations import Forbidden, Ranges, draw_view, generator_of

PHOTOS = 20
GIVEN: dict[str, tuple[float, ...]] = {
    "resized_crop": (0.1, 0.2, 0.75, 0.9), "rotate": (-9.0,), "shear_x": (0.09,), "shear_y": (0.09,), "translate_x": (0.136,),
    "translate_y": (0.136,), "brightness": (1.27,), "contrast": (0.73,), "saturation": (1.27,), "sharpness": (1.27,),
    "hue": (0.1,), "posterize": (7.0,), "solarize": (178.5,),
}  # fmt: skip
SMOOTH, SHARP = functional.InterpolationMode.BILINEAR, functional.InterpolationMode.BICUBIC
RECIPE = Ranges((0.4, 1), (3 / 4, 4 / 3), 0.5, 0, 10, 0.4, 0.4, 0.4, 0.1, randaugment_ops=2)


def moved(image: Image.Image, translate: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Image.Image:
    angles = [math.degrees(math.atan(one)) for one in shear]
    centre = [0, 0] if any(shear) else None
    return functional.affine(image, 0.0, list(translate), 1.0, angles, SMOOTH, list(FILL), centre)


def cropped(image: Image.Image, *values: float) -> Image.Image:
    left, top, right, bottom = crop_box(values, *image.size)
    return functional.resized_crop(image, top, left, bottom - top, right - left, [image.height, image.width], SHARP)


PEERS: dict[str, Callable[..., Image.Image]] = {
    "resized_crop": cropped,
    "hflip": functional.hflip,
    "vflip": functional.vflip,
    "rotate": lambda image, angle: functional.rotate(image, angle, SMOOTH, fill=list(FILL)),
    "shear_x": lambda image, by: moved(image, shear=(by, 0)),
    "shear_y": lambda image, by: moved(image, shear=(0, by)),
    "translate_x": lambda image, by: moved(image, translate=(int(by * image.width), 0)),
    "translate_y": lambda image, by: moved(image, translate=(0, int(by * image.height))),
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "sharpness": functional.adjust_sharpness,
    "hue": functional.adjust_hue,
    "grayscale": lambda image: functional.to_grayscale(image, 3),
    "posterize": lambda image, bits: functional.posterize(image, int(bits)),
    "solarize": functional.solarize,
    "autocontrast": functional.autocontrast,
    "equalize": functional.equalize,
    "invert": functional.invert,
}


def main(folder: Path) -> None:
    """Print a table of the operations, and the time of whole views."""
    torch.set_num_threads(1)
    photos = [decode(path.read_bytes()).pixels for path in sorted(folder.glob("*.jpg"))[:PHOTOS]]
    print(f"{'operation':14} {'apply':>8} {'torchvision':>12} {'difference':>11}   ms an image of {photos[0].shape[:2]}")
    for name in VALUES:
        operation, images = Operation(name, GIVEN.get(name, ())), [Image.fromarray(one) for one in photos]
        ours, results = timed(lambda pixels, one=operation: apply(pixels, [one]), photos)
        theirs, others = timed(lambda image, one=operation: PEERS[one.name](image, *one.values), images)
        pairs = zip(results, others, strict=True)
        difference = max(int(np.abs(one.astype(int) - np.asarray(other).astype(int)).max()) for one, other in pairs)
        print(f"{name:14} {ours:8.2f} {theirs:12.2f} {difference:11}")
    views = [draw_view(generator_of("bench", n), RECIPE, Forbidden(), lambda _: True) for n in range(len(photos))]
    start = time.process_time()
    for pixels, view in zip(photos, views, strict=True):
        apply(pixels, view)
    spent = 1e3 * (time.process_time() - start) / len(photos)
    print(f"whole views of {sum(map(len, views)) / len(views):.1f} operations: {spent:.1f} ms an image")


def timed(change: Callable[..., object], images: list) -> tuple[float, list]:
    """Return the CPU milliseconds for an image, the better of two rounds, and the results."""
    best, results = math.inf, []
    for _ in range(2):
        start = time.process_time()
        results = [change(image) for image in images]
        best = min(best, 1e3 * (time.process_time() - start) / len(images))
    return best, results


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "coco_free_licence")
