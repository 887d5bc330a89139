"""Decodes PNG, animated WebP, GIF, AVIF, TIFF, BMP and unusual JPEGs (CMYK, rare sampling) with Pillow."""

import io
import warnings

import numpy as np
from PIL import AvifImagePlugin, Image

from vlmdata.images.colour import to_srgb
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header_lazy import pillow_errors
from vlmdata.images.tiles import tiles

# Thousands of a million images have odd metadata, and warnings would flood the terminal. Serious damage raises an error.
warnings.filterwarnings("ignore", module=r"PIL\.")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker has one core; dav1d would start a thread per core of the machine


def decode_pillow(data: bytes, header: ImageHeader, factor: int) -> tuple[np.ndarray, bool]:
    """Return (H, W, 3) uint8 sRGB pixels, and whether the pixels needed no conversion.

    Pixels need a conversion if they have more than 8 bits, alpha, CMYK colours, or a colour profile that changes them. The
    pixels keep the stored orientation, except the pixels of a TIFF, which Pillow rotates while loading. A JPEG is shrunk by
    `factor` while decoding. Raises no exception other than ImageError.
    """
    with pillow_errors(_reason), Image.open(io.BytesIO(data), formats=_plugins(header.format)) as image:
        if image.width * image.height > header.width * header.height:
            raise ImageError("corrupt", f"the image has {image.width} x {image.height} pixels, more than the header states")
        if header.format == "jpeg" and factor > 1:
            image.draft(None, (-(-header.width // factor), -(-header.height // factor)))
        image.load()
        return _rgb(image, header)


def _plugins(name: str) -> list[str]:
    return ["JPEG", "MPO"] if name == "jpeg" else [name.upper()]


def _reason(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return "unsupported_format"
    words = str(error).lower()
    return "truncated" if "truncated" in words or "unexpected end" in words or isinstance(error, EOFError) else "corrupt"


def _rgb(image: Image.Image, header: ImageHeader) -> tuple[np.ndarray, bool]:
    """Return the image as RGB pixels, and whether they needed no conversion.

    The image is converted tile by tile, so that no other copy of the whole image is in memory.
    """
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    is_plain = True
    for rows, columns in tiles(image.height, image.width):
        is_whole = (rows.stop - rows.start, columns.stop - columns.start) == (image.height, image.width)
        tile = image if is_whole else image.crop((columns.start, rows.start, columns.stop, rows.stop))
        pixels[rows, columns], is_plain = _rgb_of(tile, header)
    return pixels, is_plain


def _rgb_of(image: Image.Image, header: ImageHeader) -> tuple[np.ndarray, bool]:
    """Return an image, or a tile of one, as RGB pixels, and whether the pixels needed no conversion.

    16 bits are scaled to 8, the colour profile is applied, and alpha is blended with white.
    """
    icc = image.info.get("icc_profile")
    image, is_deep = _eight_bits(image, header)
    has_alpha = image.has_transparency_data
    if has_alpha:
        image = image.convert("LA" if image.mode in ("L", "LA", "La", "1") else "RGBA")
        alpha = np.asarray(image.getchannel(image.mode[-1]))
        image = Image.merge("RGB", image.split()[:3]) if image.mode == "RGBA" else image.getchannel(0)
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    is_cmyk = image.mode == "CMYK"
    image, has_changed = to_srgb(image, icc)
    pixels = np.asarray(image)
    if has_alpha:
        pixels = over_white(pixels, alpha)
    return pixels, not (is_deep or has_alpha or is_cmyk or has_changed)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels blended with white by (H, W) uint8 alpha, rounded.

    img2dataset also blends with white.
    """
    opacity = alpha[:, :, None].astype(np.uint16)
    mixed = pixels * opacity + 255 * (255 - opacity) + 127  # at most 65,152, which fits 16 bits
    return (mixed // 255).astype(np.uint8)


def _eight_bits(image: Image.Image, header: ImageHeader) -> tuple[Image.Image, bool]:
    """Return the image with 16-bit grey scaled to 8 bits, and whether it had more than 8 bits.

    Pillow's own conversion would clip at 255.
    """
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        scaled = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
        key = image.info.get("transparency")
        if key is not None:
            scaled.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
        return scaled, True
    if image.mode in ("I", "F"):
        raise ImageError("unsupported_format", f"Pillow's mode {image.mode} does not define which value is white")
    if header.bit_depth == 16 and isinstance(image.info.get("transparency"), tuple):
        # Pillow keeps the upper 8 bits of each sample, but all 16 bits of the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
    return image, header.bit_depth == 16
