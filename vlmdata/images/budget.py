"""Estimates, from an image's header alone, how much memory (bytes) and time (units of cost) its decoding takes.

Memory is the peak growth of the process, measured with bench/bombs.py: the pixels in the decoder, the returned pixels, and the
decoder's other buffers. One unit of cost is the decoding of a million pixels of a baseline JPEG, which takes about 10 ms on one
core. The cost of an image is the same on every machine.
"""

from vlmdata.images.facts import ImageError, ImageHeader

MAX_PIXELS = 1_000_000_000  # default limit; images reach the limits of memory or cost before they reach this limit
MAX_MEMORY_MB = 300  # default limit for one image; an MB is 1,000,000 bytes
OWN_FILES_MB = 2_000  # limit for an image that the user names, to decontaminate against it or to take it down
MAX_COST = 1_000  # default limit for all images and frames of a row, in units; this takes about ten seconds

FIXED_BYTES = 24_000_000  # memory of the current tiles (see tiles.py) and of libraries
SIDE_BYTES = 64  # per pixel of width plus height, for the tables and line buffers of decoders and of resizing
COPIES = {"webp": 2, "jpeg": 2}  # number of copies of the encoded bytes in memory; other formats have one copy
STORED_BYTES = {"grey": 1, "palette": 1}  # bytes per pixel in Pillow; every other mode takes 4
AVIF_BYTES = 8  # per pixel, besides held_bytes: RGB, its copy and Pillow's pixels
ANIMATED_WEBP_BYTES = 20  # per pixel: three RGBA canvases, a copy and the returned pixels
STILL_WEBP_BYTES = {"rgb": 7, "rgb_alpha": 9}
FIXED_COST = 0.05
COSTS = {"jpeg": 1.0, "png": 2.0, "webp": 3.0, "avif": 5.0, "gif": 2.0, "tiff": 3.0, "bmp": 12.0}
# Units per million pixels. The cost of BMP is the cost of a run-length encoded BMP. Pillow decodes this in Python, and even
# pixel by pixel if a row ends early.
ODD_JPEG_COST = 4.0  # units per million pixels of a CMYK JPEG, which Pillow decodes
PASS_COST = 0.25  # units per million pixels, for each scan of a JPEG after the first
ALPHA_COST = 2.0
WRITTEN_BYTES = {"jpeg": 4.5, "png": 6.5, "webp": 29.0}  # bytes per pixel, in addition to the pixels themselves
USUAL_JPEG_BYTES = 2.5  # bytes per pixel of a JPEG up to quality 95
BLURRED_BYTES = 12  # per pixel: mask, blurred mask, blurred image, result and the line buffers of a long kernel
BLUR_COST = 0.3  # per million pixels and per pixel of the longest box side, because the kernel grows with this side

MASK_COST = 0.2  # per million pixels and box, for the mask of a box that is blurred on its own


def stored_bytes(header: ImageHeader) -> int:
    """Return the number of bytes that Pillow uses for one pixel of this image."""
    deep = header.mode == "grey" and header.bit_depth > 8
    return 2 if deep else STORED_BYTES.get(header.mode, 4)


def decoding_bytes(header: ImageHeader, size: int, factor: int = 1, *, by_pillow: bool = False) -> int:
    """Return the peak memory in bytes for decoding `size` bytes of encoded data, including the returned pixels.

    `factor` is the factor by which a JPEG is shrunk while decoding. `by_pillow` is true for a JPEG that simplejpeg cannot
    decode.
    """
    pixels = max(header.width * header.height, header.coded_pixels)
    if header.format == "jpeg":
        pixels = -(-header.width // factor) * -(-header.height // factor)
        each = 3 + (4 if by_pillow or header.mode == "cmyk" else 0)
    elif header.format == "webp":
        each = ANIMATED_WEBP_BYTES if header.is_animated else STILL_WEBP_BYTES[header.mode]
    elif header.format == "avif":
        each = AVIF_BYTES + (header.mode == "rgb_alpha")
    else:
        each = 3 + stored_bytes(header) * (2 if header.format == "tiff" and header.orientation != 1 else 1)
    if header.orientation != 1:
        each = max(each, 6)  # memory holds both the stored and the rotated pixels
    lines = SIDE_BYTES * (header.width + header.height)
    return FIXED_BYTES + each * pixels + header.held_bytes + lines + COPIES.get(header.format, 1) * size


def decoding_cost(header: ImageHeader) -> float:
    """Return the cost of decoding an image, in units of cost. Shrinking a JPEG while decoding does not lower the cost."""
    millions = max(header.width * header.height, header.coded_pixels) / 1e6
    each = ODD_JPEG_COST if header.mode == "cmyk" and header.format == "jpeg" else COSTS[header.format]
    each += PASS_COST * (header.passes - 1) + (ALPHA_COST if header.mode.endswith("alpha") else 0)
    return FIXED_COST + each * millions


def writing_bytes(pixels: int, format: str, quality: int) -> int:
    """Return the peak memory in bytes for encoding `pixels` pixels, including the pixels.

    The result is for an image of noise, which is the worst case.
    """
    each = USUAL_JPEG_BYTES if format == "jpeg" and quality <= 95 else WRITTEN_BYTES[format]
    return FIXED_BYTES + round((3 + each) * pixels)


def blurring_cost(pixels: float, longest: float) -> float:
    """Return how many units of cost it takes to blur boxes in an image of `pixels` pixels.

    `longest` is the length in pixels of the longest side of any box.
    """
    return BLUR_COST * pixels / 1e6 * longest


def box_blurring_cost(width: int, height: int, box_width: float, box_height: float) -> float:
    """Return how many units of cost it takes to blur one box in an image of `width` x `height` pixels.

    Only the box and its surroundings, 0.7 of its longer side on each side, are blurred.
    """
    side = min(max(box_width, box_height), max(width, height))
    window = min(width, box_width + 1.4 * side + 4) * min(height, box_height + 1.4 * side + 4)
    return MASK_COST * width * height / 1e6 + blurring_cost(window, side)


def check_memory(needed: float, max_memory_mb: float, what: str) -> None:
    """Raise ImageError `too_large` if `needed` bytes exceed `max_memory_mb`."""
    if needed > max_memory_mb * 1e6:
        value = round(needed / 1e6, 1)
        raise ImageError(
            "too_large",
            f"{what} takes {value} MB, more than the limit of {max_memory_mb} MB",
            value=value,
            threshold=max_memory_mb,
        )


def check_cost(cost: float, max_cost: float, what: str) -> None:
    """Raise ImageError `too_costly` if `cost` exceeds `max_cost`. Both are in units of cost, as defined above."""
    if cost > max_cost:
        value = round(cost, 2)
        raise ImageError(
            "too_costly", f"{what} costs {value} units, more than the limit of {max_cost}", value=value, threshold=max_cost
        )


def check_pixels(pixels: int, max_pixels: int, what: str) -> None:
    """Raise ImageError `too_many_pixels` if `pixels` exceeds `max_pixels`."""
    if pixels > max_pixels:
        raise ImageError("too_many_pixels", f"{what} has more than {max_pixels} pixels", value=pixels, threshold=max_pixels)
