"""Images made ready for a model: decoded and resized in threads ahead of the model, and once where models want them alike.

B images, H x W the model's side. What goes to the device is bytes; it scales them to the model's range there.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from PIL import Image
from torchvision.transforms import Normalize, ToTensor

from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB, decoding_bytes, decoding_cost, hold_cost, hold_memory
from vlmdata.images.header import read_header
from vlmdata.untrusted import Failed, errors_as

T = TypeVar("T", bound=Hashable)

AHEAD = 3  # batches decoded ahead
PILLOW_BYTES = 8  # a pixel, beside what our own way of decoding takes: its three canvases of a WebP, a copy of it in RGB
KEPT_BYTES = 256_000_000  # of prepared images that another model may want: a part of 1,000 at 224 pixels takes 150 MB


@dataclass(frozen=True)
class Preparation:
    """A model's own preprocessing, cut where pictures become numbers."""

    resize: tuple[Any, ...]  # what is done to the picture
    mean: tuple[float, ...]  # of each channel in [0, 1],
    std: tuple[float, ...]  # and what the difference is divided by

    @property
    def name(self) -> str:
        """What tells pictures prepared in one way from those prepared in another."""
        return " ".join(repr(one) for one in self.resize)

    def pixels(self, body: bytes) -> np.ndarray:
        """Return encoded bytes as the model wants them: (3, H, W) uint8."""
        image = opened(body)
        for one in self.resize:
            image = one(image)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def preparation(transforms: Any) -> Preparation:
    """Take open_clip's `Compose` apart: pictures up to ToTensor, then Normalize and nothing else."""
    steps = list(transforms.transforms)
    place = next(number for number, one in enumerate(steps) if isinstance(one, ToTensor))
    *_, last = steps
    assert isinstance(last, Normalize) and place == len(steps) - 2, f"unknown preprocessing: {transforms}"
    return Preparation(tuple(steps[:place]), tuple(map(float, last.mean)), tuple(map(float, last.std)))


def opened(body: bytes) -> Image.Image:
    """Return the picture in RGB, pixel for pixel as Pillow decodes it; a JPEG in half of Pillow's time.

    Raises ImageError for what is no image or would take more than the default limits, whatever Pillow raises for the rest.
    """
    header = read_header(body)
    pixels = max(header.width * header.height, header.coded_pixels)
    hold_memory(decoding_bytes(header, len(body)) + PILLOW_BYTES * pixels, MAX_MEMORY_MB, "the image")
    hold_cost(decoding_cost(header), MAX_COST, "the image")
    if body[:2] == b"\xff\xd8":
        try:
            if simplejpeg.decode_jpeg_header(body)[2] in ("YCbCr", "Gray"):
                return Image.fromarray(simplejpeg.decode_jpeg(body, "RGB"))
        except ValueError:  # one file in a hundred has a flaw that it does not forgive
            pass
    return Image.open(io.BytesIO(body)).convert("RGB")


class PixelCache:
    """Threads that prepare images, and the images last prepared."""

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._kept: OrderedDict[tuple[str, Hashable], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def batches(
        self, prepare: Preparation, images: Sequence[T], read: Callable[[T], bytes], size: int
    ) -> Iterator[list[np.ndarray | None]]:
        """Yield `size` images at a time, in order, while the next AHEAD batches are read and prepared.

        None stands for one that cannot be decoded: a source's own bytes may be broken."""
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
            with errors_as(Failed, passes=(MemoryError,)):  # want of memory is no verdict on the picture
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
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
