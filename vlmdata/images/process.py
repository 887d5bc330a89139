"""The whole way of one image, bytes to bytes: header, decode with shrink-on-load, blur, resize, encode, hashes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmdata.images.blur_boxes import blur_boxes
from vlmdata.images.decode import Decoded, decode
from vlmdata.images.encode import LARGEST_SIDE, encode
from vlmdata.images.header import ImageError, read_header
from vlmdata.images.phash import phash
from vlmdata.images.resize import Box, ResizeRule, Transform, place_on, scale_to, transform


@dataclass(frozen=True, slots=True)
class Processed:
    """An image ready to be written, and its facts. Sizes are in pixels of the upright picture.

    `data` are the bytes in `format`; `sha256` (hex) is of the bytes that came in, `phash` of `pixels`, which are the
    result before encoding. `boxes` are those given, moved along (None for one that was cut away). `is_original` says
    that `data` are the bytes that came in. `source_format` and `decoder` say what they were and what read them.
    """

    data: bytes
    format: str
    width: int
    height: int
    original_width: int
    original_height: int
    source_format: str
    decoder: str
    sha256: str
    phash: int
    is_original: bool
    is_animated: bool
    boxes: list[Box | None]
    pixels: np.ndarray


def process(
    data: bytes,
    rule: ResizeRule,
    *,
    max_pixels: int,
    boxes: Sequence[Box] = (),
    blur: Sequence[Box] = (),
) -> Processed:
    """Bring one image to what `rule` asks. Raises ImageError, and nothing else, for any bytes.

    `boxes` are carried along, in pixels of the upright original. `blur` are the places of faces, each number a share
    (0..1) of the upright original's width or height, as DataComp's `face_bboxes` and img2dataset's `bbox_col` have them.
    """
    header = read_header(data)
    change = transform(rule, *header.upright_size)
    _check_output(change, rule, max_pixels)
    decoded = decode(data, max_pixels=max_pixels, target=change.scaled, header=header)
    is_original = not blur and keeps_bytes(rule, decoded, change)
    decoder = decoded.decoder
    pixels = scale_to(decoded.pixels, change.scaled)
    del decoded  # an 8-megapixel picture is not held while the small one is written
    if blur:
        width, height = change.scaled
        pixels = blur_boxes(pixels, [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in blur])
    pixels = place_on(pixels, change)
    return Processed(
        data=data if is_original else encode(pixels, rule.format, rule.quality),
        format=rule.format,
        width=change.output[0],
        height=change.output[1],
        original_width=change.source[0],
        original_height=change.source[1],
        source_format=header.format,
        decoder=decoder,
        sha256=hashlib.sha256(data).hexdigest(),
        phash=phash(pixels),
        is_original=is_original,
        is_animated=header.is_animated,
        boxes=change.boxes(boxes) if boxes else [],
        pixels=pixels,
    )


def _check_output(change: Transform, rule: ResizeRule, max_pixels: int) -> None:
    """Hold the cap for what is made, too: a line of 1 x 60,000 pixels brought to a short side of 256 is four billion."""
    for width, height in (change.scaled, change.output):
        if width * height > max_pixels or max(width, height) > LARGEST_SIDE[rule.format]:
            raise ImageError("too_many_pixels", f"{rule.mode} {rule.size} makes {width} x {height} pixels of it")


def keeps_bytes(rule: ResizeRule, decoded: Decoded, change: Transform) -> bool:
    """Whether the original bytes serve as they are: asked for, the same format and size, and nothing to put right."""
    return rule.skip_reencode and decoded.format == rule.format and decoded.is_plain and change.output == change.source
