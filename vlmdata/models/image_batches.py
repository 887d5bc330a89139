"""Prepare images for models. Threads prefetch, decode and resize them, once for all models with the same preprocessing.

B images, H x W the model's input size. The device receives uint8 and scales it to the model's range.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from PIL import Image
from torchvision.transforms import Normalize, ToTensor

from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB, check_cost, check_memory, decoding_bytes, decoding_cost
from vlmdata.images.header import read_header
from vlmdata.untrusted import Failed, errors_as

T = TypeVar("T", bound=Hashable)

AHEAD = 3  # batches to prefetch
PILLOW_BYTES = 8  # bytes per pixel that Pillow needs more than our decoder, for three canvases of a WebP and an RGB copy
KEPT_BYTES = 256_000_000  # size of the cache; the images of a partition, 1,000 images of 224 x 224 pixels, take 150 MB


@dataclass(frozen=True)
class Preparation:
    """A model's preprocessing, split into image operations and normalisation."""

    resize: tuple[Any, ...]  # operations on the image
    mean: tuple[float, ...]  # of each channel, in [0, 1]
    std: tuple[float, ...]  # of each channel, in [0, 1]

    @property
    def name(self) -> str:
        """A cache key that identifies the image operations."""
        return " ".join(repr(one) for one in self.resize)

    def pixels(self, body: bytes) -> np.ndarray:
        """Return the pixels of an encoded image as the model's input: (3, H, W) uint8."""
        image = opened(body)
        for one in self.resize:
            image = one(image)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def preparation(transforms: Any) -> Preparation:
    """Return the preprocessing that open_clip's `Compose` describes: image operations, then `ToTensor` and `Normalize`."""
    steps = list(transforms.transforms)
    place = next(number for number, one in enumerate(steps) if isinstance(one, ToTensor))
    *_, last = steps
    assert isinstance(last, Normalize) and place == len(steps) - 2, (
        f"the preprocessing must end with ToTensor and Normalize, not {transforms}"
    )
    return Preparation(tuple(steps[:place]), tuple(map(float, last.mean)), tuple(map(float, last.std)))


def opened(body: bytes) -> Image.Image:
    """Return the image in RGB, with the same pixels as Pillow's decoder. Most JPEGs are decoded by simplejpeg in half the time.

    Raises ImageError for bytes that are not an image or exceed the default limits. Raises Pillow's errors for an image that
    Pillow cannot decode.
    """
    header = read_header(body)
    pixels = max(header.width * header.height, header.coded_pixels)
    check_memory(decoding_bytes(header, len(body)) + PILLOW_BYTES * pixels, MAX_MEMORY_MB, "the image")
    check_cost(decoding_cost(header), MAX_COST, "the image")
    if body[:2] == b"\xff\xd8":
        try:
            if simplejpeg.decode_jpeg_header(body)[2] in ("YCbCr", "Gray"):
                return Image.fromarray(simplejpeg.decode_jpeg(body, "RGB"))
        except ValueError:  # simplejpeg rejects one in a hundred files, for flaws that Pillow accepts
            pass
    return Image.open(io.BytesIO(body)).convert("RGB")


def opened_or_none(body: bytes) -> Image.Image | None:
    """Return the image as `opened` does, or None if it cannot be decoded. Lack of memory is an error, not a broken image."""
    with suppress(Failed), errors_as(Failed, passes=(MemoryError,)):
        return opened(body)
    return None


class PixelCache:
    """Prepares images in threads and caches the latest results, which models with the same preprocessing share."""

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._kept: OrderedDict[tuple[str, Hashable], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def batches(
        self, prepare: Preparation, images: Sequence[T], read: Callable[[T], bytes], size: int
    ) -> Iterator[list[np.ndarray | None]]:
        """Yield the pixels of the images in order, in batches of `size` images, and prefetch the next `AHEAD` batches.

        `read` returns an image's encoded bytes. The pixels of an image that cannot be decoded are None, because a source may
        hold broken images.
        """
        waiting: deque[list[Future[np.ndarray | None]]] = deque()
        starts = iter(range(0, len(images), size))
        while True:
            while len(waiting) <= AHEAD and (start := next(starts, None)) is not None:
                some = images[start : start + size]
                waiting.append([self._pool.submit(self._prepared, prepare, image, read) for image in some])
            if not waiting:
                return
            yield [one.result() for one in waiting.popleft()]

    def _prepared(self, prepare: Preparation, image: T, read: Callable[[T], bytes]) -> np.ndarray | None:
        key = (prepare.name, image)
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        body = read(image)
        try:
            with errors_as(Failed, passes=(MemoryError,)):  # lack of memory does not mean that the image is broken
                pixels = prepare.pixels(body)
        except Failed:
            return None
        with self._lock:
            if key not in self._kept:
                self._kept[key] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

    def close(self) -> None:
        """Stop the threads without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)
