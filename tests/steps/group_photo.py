"""A picture of a group: one face of a photo, eleven times, before a grey wall."""

import functools
import io

import numpy as np
from PIL import Image

from tests.fixtures import fixture

FACES = 11


@functools.cache
def group_photo() -> bytes:
    """Return a JPEG of 480 x 360 pixels with FACES faces of 58 to 90 pixels."""
    with Image.open(fixture("J_faces/photos/000000347254.jpg")) as photo:
        head = photo.convert("RGB").crop((20, 10, 185, 220))
    noise = np.random.default_rng(0).normal(150, 6, (360, 480, 3)).clip(0, 255).astype(np.uint8)
    wall = Image.fromarray(noise)
    for number in range(FACES):
        width = 66 + 4 * (number % 4)
        wall.paste(head.resize((width, width * 210 // 165)), (10 + number % 5 * 94, 8 + number // 5 * 118))
    file = io.BytesIO()
    wall.save(file, "JPEG", quality=92)
    return file.getvalue()
