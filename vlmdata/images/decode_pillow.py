"""What Pillow decodes: PNG, animated WebP, GIF, AVIF, TIFF, BMP, and odd JPEGs (CMYK, strange sampling)."""

import io
import warnings

import numpy as np
from PIL import AvifImagePlugin, Image

from vlmdata.images.colour import to_srgb
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header_lazy import pillow_errors
from vlmdata.images.tiles import tiles

# Of a million images thousands have odd metadata: what matters of it raises, the rest is not for the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one core a worker; dav1d would start one thread for each


def decode_pillow(data: bytes, header: ImageHeader, factor: int) -> tuple[np.ndarray, bool]:
    """Return (H, W, 3) uint8 sRGB and whether nothing but plain decoding was done.

    The pixels are as stored, not upright, save those of a TIFF, which Pillow turns while loading.
    A JPEG is shrunk by `factor` while decoding. Raises ImageError, and nothing else.
    """
    with pillow_errors(_reason), Image.open(io.BytesIO(data), formats=_plugins(header.format)) as image:
        if image.width * image.height > header.width * header.height:
            raise ImageError("corrupt", f"{image.width} x {image.height} pixels, more than the header says")
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
    """Bring any mode to RGB, in pieces: the whole picture is in memory twice, as Pillow has it and as RGB."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    is_plain = True
    for rows, columns in tiles(image.height, image.width):
        is_whole = (rows.stop - rows.start, columns.stop - columns.start) == (image.height, image.width)
        part = image if is_whole else image.crop((columns.start, rows.start, columns.stop, rows.stop))
        pixels[rows, columns], is_plain = _rgb_of(part, header)
    return pixels, is_plain


def _rgb_of(image: Image.Image, header: ImageHeader) -> tuple[np.ndarray, bool]:
    """Return a piece in RGB, 16 bits scaled to 8, profile applied, alpha over white; and whether none of that was needed."""
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
    """Lay (H, W, 3) uint8 over white by (H, W) uint8 alpha, rounded to nearest in integers; white as img2dataset does."""
    opacity = alpha[:, :, None].astype(np.uint16)
    mixed = pixels * opacity + 255 * (255 - opacity) + 127  # at most 65,152: fits 16 bits
    return (mixed // 255).astype(np.uint8)


def _eight_bits(image: Image.Image, header: ImageHeader) -> tuple[Image.Image, bool]:
    """Scale 16-bit greys to 8 (Pillow's own conversion cuts at 255) and say whether the picture was deeper than 8 bits."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        scaled = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
        key = image.info.get("transparency")
        if key is not None:
            scaled.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
        return scaled, True
    if image.mode in ("I", "F"):
        raise ImageError("unsupported_format", f"pixels of kind {image.mode} have no white point")
    if header.bit_depth == 16 and isinstance(image.info.get("transparency"), tuple):
        # Pillow has kept the upper 8 bits of each sample but all 16 of the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
    return image, header.bit_depth == 16
