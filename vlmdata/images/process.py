"""Processes one image from bytes to bytes: header, decoding with shrink-on-load, resizing, blurring, encoding and hashes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmdata.images.blur_boxes import blur_boxes
from vlmdata.images.box_geometry import fractions
from vlmdata.images.budget import (
    BLURRED_BYTES,
    FIXED_BYTES,
    MAX_COST,
    MAX_MEMORY_MB,
    MAX_PIXELS,
    blurring_cost,
    box_blurring_cost,
    check_cost,
    check_memory,
    check_pixels,
    decoding_cost,
    writing_bytes,
)
from vlmdata.images.decode import DecodedImage, decode
from vlmdata.images.encode import LARGEST_SIDE, encode
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header import read_header
from vlmdata.images.phash import phash
from vlmdata.images.resize import Box, ResizeRule, Transform, crop_or_pad, scale_to, transform


@dataclass(frozen=True, slots=True)
class Processed:
    """A processed image and its facts. Sizes are in pixels of the upright image.

    `data` is the image in `format`. `is_original` is true if `data` is the unchanged input. `sha256` (hex) is the hash of the
    input. `phash` is the hash of `pixels`, which are the result before encoding. `boxes` are the input boxes in pixels of the
    result, with None for a box that was cropped away. `original_boxes` are the same boxes as fractions of the input, and `view`
    is the part of the input that the result shows: see `fractions` and `Transform.view`. `source_format` is the input's format.
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
    original_boxes: list[Box | None]
    view: Box | None
    pixels: np.ndarray


def process(
    data: bytes,
    rule: ResizeRule,
    *,
    max_pixels: int = MAX_PIXELS,
    max_memory_mb: float = MAX_MEMORY_MB,
    max_cost: float = MAX_COST,
    boxes: Sequence[Box | None] = (),
    blur: Sequence[Box] = (),
    separately: bool = False,
) -> Processed:
    """Return one image, processed by `rule` within limits (see budget.py). Raises only ImageError.

    `boxes` are in pixels of the upright original. The result has these boxes in pixels of the processed image. `blur` are the
    boxes of faces to blur. Each coordinate in `blur` is a fraction (0..1) of the width or height of the upright original, as in
    DataComp's `face_bboxes` and img2dataset's `bbox_col`. `separately` is as in `blur_boxes`.
    """
    header = read_header(data)
    change = transform(rule, *header.upright_size)
    _check_output(change, rule, max_pixels)
    check_cost(_cost(header, change, blur, separately), max_cost, "the image")
    scaled_pixels = change.scaled[0] * change.scaled[1]
    check_memory(FIXED_BYTES + scaled_pixels * (BLURRED_BYTES if blur else 3), max_memory_mb, "the resized image")
    decoded = decode(
        data,
        max_pixels=max_pixels,
        max_memory_mb=max_memory_mb,
        max_cost=max_cost,
        target=change.scaled,
        beside=0 if change.scaled == change.source else 3 * scaled_pixels,
        header=header,
    )
    is_original = not blur and keeps_bytes(rule, decoded, change)
    if not is_original:
        written = change.output[0] * change.output[1]
        check_memory(writing_bytes(written, rule.format, rule.quality), max_memory_mb, f"writing {written} pixels")
    decoder = decoded.decoder
    pixels = scale_to(decoded.pixels, change.scaled)
    del decoded  # frees a large image before the small result is encoded
    if blur:
        width, height = change.scaled
        boxes_of_faces = [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in blur]
        pixels = blur_boxes(pixels, boxes_of_faces, separately=separately)
    pixels = crop_or_pad(pixels, change)
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
        boxes=change.boxes(boxes),
        original_boxes=fractions(boxes, *change.source),
        view=change.view(),
        pixels=pixels,
    )


def processing_cost(data: bytes, rule: ResizeRule, blur: Sequence[Box] = ()) -> float:
    """Return the cost of the function `process`, in the units of `budget.py`. Only the image's header is read.

    Raises ImageError if the header cannot be read.
    """
    header = read_header(data)
    return _cost(header, transform(rule, *header.upright_size), blur)


def _cost(header: ImageHeader, change: Transform, blur: Sequence[Box], separately: bool = False) -> float:
    width, height = change.scaled
    sizes = [(abs(x1 - x0) * width, abs(y1 - y0) * height) for x0, y0, x1, y1 in blur]
    if separately:
        return decoding_cost(header) + sum(box_blurring_cost(width, height, *size) for size in sizes)
    longest = min(max(map(max, sizes), default=0.0), max(width, height))
    return decoding_cost(header) + blurring_cost(width * height, longest)


def _check_output(change: Transform, rule: ResizeRule, max_pixels: int) -> None:
    """Raise ImageError if the resized image exceeds the limits.

    For example, an image of 1 x 60,000 pixels has four billion pixels after its short side is resized to 256.
    """
    for width, height in (change.scaled, change.output):
        subject = f"the resized image ({rule.mode} {rule.size}, {width} x {height} pixels)"
        check_pixels(width * height, max_pixels, subject)
        longest = LARGEST_SIDE[rule.format]
        if max(width, height) > longest:
            raise ImageError(
                "too_many_pixels",
                f"{subject} has a side of more than {longest} pixels",
                value=max(width, height),
                threshold=longest,
            )


def keeps_bytes(rule: ResizeRule, decoded: DecodedImage, change: Transform) -> bool:
    """Return whether the original bytes are kept: the rule must allow this, and format, size and pixels must stay the same."""
    return rule.skip_reencode and decoded.format == rule.format and decoded.is_plain and change.output == change.source
