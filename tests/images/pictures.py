"""Small images and colour profiles, generated for the tests of this folder."""

import io
import struct

import cv2
import numpy as np
from PIL import Image

P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return (H, W, 3) uint8 with smooth colours, edges and a little noise, like a photo."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    cv2.rectangle(pixels, (width // 8, height // 6), (width // 2, height // 3), (250, 30, 20), -1)
    noise = random.integers(-6, 7, pixels.shape)
    return np.clip(pixels.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def saved(picture: Image.Image | np.ndarray, format: str, **settings: object) -> bytes:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    out = io.BytesIO()
    image.save(out, format, **settings)
    return out.getvalue()


def pillow_rgb(data: bytes) -> np.ndarray:
    """Return the pixels that Pillow alone decodes, upright and with alpha over white."""
    from PIL import ImageOps

    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white
        return np.asarray(image.convert("RGB"))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def matrix_profile(columns: tuple, gamma: float) -> bytes:
    """Return an ICC profile (version 2) of three primaries (XYZ under D50) with the tone curve x ** gamma."""

    def xyz(values: tuple) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    blocks = {b"desc": text + bytes(-len(text) % 4), b"cprt": b"text\0\0\0\0none", b"wtpt": xyz((0.9642, 1.0, 0.82491))}
    for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True):
        blocks[name] = xyz(values)
    blocks |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(blocks)), b""
    start = 128 + 4 + 12 * len(blocks)
    for name, block in blocks.items():
        table += name + struct.pack(">II", start + len(body), len(block))
        body += block
    head = struct.pack(">I4s4s4s4s4s", 0, b"none", b"\x02\x40\0\0", b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    profile = head.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


def through_matrix(pixels: np.ndarray, columns: tuple, gamma: float) -> np.ndarray:
    """Return (H, W, 3) pixels of such a profile in sRGB, in double precision, clipped to 0..255."""
    light = (pixels / 255.0) ** gamma @ np.array(columns) @ np.linalg.inv(np.array(SRGB))
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
