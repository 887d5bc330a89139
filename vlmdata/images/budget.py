"""What decoding an image takes, known before it begins: memory in bytes, time in units that hang on the header alone.

Memory is what a process grows by at the worst, measured with bench/bombs.py: the pixels as the decoder has them, those handed
out, and what it holds on the way. A unit of cost is what a million pixels of a baseline JPEG take, about 10 ms of one core; the
same image costs the same on every machine, however busy.
"""

from vlmdata.images.facts import ImageError, ImageHeader

MAX_PIXELS = 1_000_000_000  # memory and cost are the limits; this one is there to be set lower
MAX_MEMORY_MB = 300  # of 1,000,000 bytes: what one image may take at once, with the default limits
OWN_FILES_MB = 2_000  # the same of a file that the user names himself: a reference, what is to be taken down
MAX_COST = 1_000  # units: about ten seconds, for all images and frames of a row together

FIXED_BYTES = 24_000_000  # pieces in work, see tiles.py, and what libraries keep
SIDE_BYTES = 64  # for each pixel of width and height: tables and lines that decoders and resizing keep
COPIES = {"webp": 2, "jpeg": 2}  # of the encoded bytes; of other formats one
STORED_BYTES = {"grey": 1, "palette": 1}  # a pixel of Pillow's; of every other mode 4
AVIF_BYTES = 8  # a pixel, beside held_bytes: RGB, a copy of it and Pillow's pixels
ANIMATED_WEBP_BYTES = 20  # a pixel: three canvases of RGBA, a copy and what is handed out
STILL_WEBP_BYTES = {"rgb": 7, "rgb_alpha": 9}
FIXED_COST = 0.05
COSTS = {"jpeg": 1.0, "png": 2.0, "webp": 3.0, "avif": 5.0, "gif": 2.0, "tiff": 3.0, "bmp": 12.0}  # units per million pixels,
# of a BMP those of one that is packed in runs: Pillow unpacks it in Python, pixel by pixel where a row ends early
ODD_JPEG_COST = 4.0  # CMYK, decoded by Pillow
PASS_COST = 0.25  # for each scan of a JPEG after the first
ALPHA_COST = 2.0
WRITTEN_BYTES = {"jpeg": 4.5, "png": 6.5, "webp": 29.0}  # a pixel, beside the pixels
USUAL_JPEG_BYTES = 2.5  # to quality 95
BLURRED_BYTES = 12  # a pixel: mask, blurred mask, blurred picture, result and the lines of a long kernel
BLUR_COST = 0.3  # per million pixels and pixel of the longest box: the kernel grows with it


def stored_bytes(header: ImageHeader) -> int:
    """Return the bytes of one pixel as Pillow holds it."""
    deep = header.mode == "grey" and header.bit_depth > 8
    return 2 if deep else STORED_BYTES.get(header.mode, 4)


def decoding_bytes(header: ImageHeader, size: int, factor: int = 1, *, by_pillow: bool = False) -> int:
    """Return what decoding takes at once, pixels handed out included, where `size` is that of the encoded data in bytes.

    A JPEG is shrunk by `factor` while it is decoded. `by_pillow` is a JPEG that simplejpeg does not take.
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
        each = max(each, 6)  # as stored and as turned
    lines = SIDE_BYTES * (header.width + header.height)
    return FIXED_BYTES + each * pixels + header.held_bytes + lines + COPIES.get(header.format, 1) * size


def decoding_cost(header: ImageHeader) -> float:
    """Return the cost of decoding in units: of a JPEG the same whether it is shrunk meanwhile or not."""
    millions = max(header.width * header.height, header.coded_pixels) / 1e6
    each = ODD_JPEG_COST if header.mode == "cmyk" and header.format == "jpeg" else COSTS[header.format]
    each += PASS_COST * (header.passes - 1) + (ALPHA_COST if header.mode.endswith("alpha") else 0)
    return FIXED_COST + each * millions


def writing_bytes(pixels: int, format: str, quality: int) -> int:
    """Return what writing so many pixels takes at once, the pixels included: of noise, the worst there is."""
    each = USUAL_JPEG_BYTES if format == "jpeg" and quality <= 95 else WRITTEN_BYTES[format]
    return FIXED_BYTES + round((3 + each) * pixels)


def blurring_cost(pixels: int, longest: float) -> float:
    """Return the cost of blurring boxes in a picture of so many pixels, the longest side of which is `longest` pixels."""
    return BLUR_COST * pixels / 1e6 * longest


def hold_memory(needed: float, max_memory_mb: float, what: str) -> None:
    """Raise ImageError, too_large, where `needed` bytes are more than `max_memory_mb`."""
    if needed > max_memory_mb * 1e6:
        value = round(needed / 1e6, 1)
        raise ImageError("too_large", f"{what} takes {value} MB, over {max_memory_mb}", value=value, threshold=max_memory_mb)


def hold_cost(cost: float, max_cost: float, what: str) -> None:
    """Raise ImageError, too_costly, where `cost` is more than `max_cost`, both in units."""
    if cost > max_cost:
        value = round(cost, 2)
        raise ImageError("too_costly", f"{what} costs {value} units, over {max_cost}", value=value, threshold=max_cost)


def hold_pixels(pixels: int, max_pixels: int, what: str) -> None:
    """Raise ImageError, too_many_pixels, where there are more `pixels` than `max_pixels`."""
    if pixels > max_pixels:
        raise ImageError("too_many_pixels", f"{what} is over {max_pixels} pixels", value=pixels, threshold=max_pixels)
