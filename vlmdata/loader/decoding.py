"""Decoding of a sample's bytes to pixels and text, for `stream(decode=...)`.

Benchmark against torchvision, Pillow, cv2 and simplejpeg: `python -m bench.loader_decoders`, docs/loader.md.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmdata.arguments import check_bool, check_callable, check_choice, check_whole, check_whole_or_none
from vlmdata.images.budget import MAX_MEMORY_MB, MAX_PIXELS
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.formats import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS
from vlmdata.images.header import read_header
from vlmdata.images.resize import MODES, ResizeRule, place_on, scale_to, transform
from vlmdata.loader.lengths import draw
from vlmdata.loader.read_samples import DamagedSample, Sample

Pixels = NDArray[np.uint8]
FILTERS = ("bilinear", "area")
Augment = Callable[[Pixels, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Decode:
    """Decodes a sample: images to (H, W, 3) uint8 sRGB, upright; `txt` to str; `json` to its value.

    `size` and `mode` resize images (see ResizeRule; None keeps their size) with torch's antialiased bilinear filter, or with
    filter="area" with cv2's, which needs no torch. `augment(pixels, generator)` gets a generator fixed by the sample and the
    epoch: the same after a resume and on any number of ranks and workers. With `alternatives`, each epoch draws one of the
    caption and the `alternatives` in its JSON. An image of more than `max_pixels`, or that needs more than `max_memory_mb`
    to decode, is refused by its header. Raises DamagedSample for an unreadable image or JSON and for a caption that is not
    UTF-8; errors of `augment` pass through.
    """

    size: int | None = None
    mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = "center_crop"
    filter: Literal["bilinear", "area"] = "bilinear"
    augment: Augment | None = None
    alternatives: bool = True
    max_pixels: int = MAX_PIXELS
    max_memory_mb: int = MAX_MEMORY_MB

    def __post_init__(self) -> None:
        check_whole_or_none(1, size=self.size)
        check_choice(MODES, mode=self.mode)
        check_choice(FILTERS, filter=self.filter)
        check_callable(augment=self.augment)
        check_bool(alternatives=self.alternatives)
        check_whole(1, max_pixels=self.max_pixels, max_memory_mb=self.max_memory_mb)

    def __call__(self, sample: Sample) -> Sample:
        result: Sample = {}
        for name, value in sample.items():
            extension = name.rpartition(".")[2]
            if not isinstance(value, bytes):
                result[name] = value
            elif extension in IMAGE_EXTENSIONS:
                result[name] = self.image(value, sample, name)
            elif extension in CAPTION_EXTENSIONS:
                result[name] = _caption(value, sample, name)
            elif extension == "json":
                result[name] = _json(value, sample, name)
            else:
                result[name] = value
        if self.alternatives and isinstance(result.get("txt"), str) and isinstance(result.get("json"), dict):
            result["txt"] = drawn_caption(result["txt"], result["json"], sample["__seed__"])
        return result

    def image(self, data: bytes, sample: Sample, name: str) -> Pixels:
        """Decode, resize and augment one image. Raises DamagedSample."""
        try:
            header = read_header(data)
            width, height = header.upright_size
            rule = ResizeRule(self.mode, self.size or 1) if self.size else ResizeRule("no")
            change = transform(rule, width, height)
            target = change.scaled if self.size else None
            pixels = decode(
                data, max_pixels=self.max_pixels, max_memory_mb=self.max_memory_mb, target=target, header=header
            ).pixels
        except ImageError as error:
            raise _damaged(sample, name, str(error)) from error
        if self.size:
            scale = scale_to if self.filter == "area" else _scale_by_torch
            pixels = place_on(scale(pixels, change.scaled), change)
        if self.augment is not None:
            pixels = self.augment(pixels, generator_of(sample, name))
        return pixels


def generator_of(sample: Sample, name: str = "") -> np.random.Generator:
    """Return a random generator fixed by the sample, its epoch and the member `name`."""
    return np.random.Generator(np.random.PCG64([sample["__seed__"], *name.encode()]))


def drawn_caption(caption: str, facts: dict[str, Any], seed: int) -> str:
    """Return the caption or one of the JSON's `alternatives`, equally likely, drawn by the sample's random number."""
    captions = captions_of(caption, facts)
    return captions[draw(seed, len(captions))]


def captions_of(caption: str, facts: dict[str, Any]) -> list[str]:
    """Return the caption and the texts in the JSON's `alternatives`, which in foreign JSON may be anything."""
    others = facts.get("alternatives")
    return [caption, *(text for text in others if isinstance(text, str))] if isinstance(others, list) else [caption]


@dataclass(frozen=True)
class RandomCrop:
    """An augmentation: crops a random part of the image and scales it to the image's size.

    `area` is the range of the part's share of the area, `shape` of its width / height; `mirror` is the probability of
    mirroring. Source: Szegedy et al. 2015, with open_clip's range of the area for training on captions. Mirroring is off by
    default: it swaps left and right and makes text unreadable.
    """

    area: tuple[float, float] = (0.9, 1.0)
    shape: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.0

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        height, width = pixels.shape[:2]
        ratio = math.exp(random.uniform(math.log(self.shape[0]), math.log(self.shape[1])))
        part = random.uniform(*self.area) * width * height
        cut_width, cut_height = min(width, round(math.sqrt(part * ratio))), min(height, round(math.sqrt(part / ratio)))
        left, top = (int(random.integers(0, free + 1)) for free in (width - cut_width, height - cut_height))
        cut = np.ascontiguousarray(pixels[top : top + cut_height, left : left + cut_width])
        scaled = scale_to(cut, (width, height))
        return np.ascontiguousarray(scaled[:, ::-1]) if random.random() < self.mirror else scaled


def _scale_by_torch(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    import torch
    from torch.nn.functional import interpolate

    if pixels.shape[1::-1] == size:
        return pixels
    pixels = pixels if pixels.flags.writeable else pixels.copy()  # torch warns about read-only arrays, which Pillow returns
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (1, 3, H, W), channels last: torch's fast path
    return interpolate(planes, size[::-1], mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def text_of(data: bytes) -> str:
    """Return a caption without its UTF-8 mark. Raises UnicodeDecodeError, also if a quarter of it is null characters."""
    text = data.decode()
    if "\0" in text and 4 * text.count("\0") >= len(text):  # UTF-16 or 32 without its mark
        raise UnicodeDecodeError("utf-8", data, data.index(b"\0"), len(data), "null characters")
    return text.removeprefix("\ufeff")


def _caption(data: bytes, sample: Sample, name: str) -> str:
    try:
        return text_of(data)
    except UnicodeDecodeError as error:
        raise _damaged(sample, name, f"not UTF-8: {error}") from error


def _json(data: bytes, sample: Sample, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(sample, name, f"not JSON: {error}") from error


def _damaged(sample: Sample, name: str, why: str) -> DamagedSample:
    where = f"{sample['__url__']}, sample {sample['__key__']!r}, member {name!r}"
    return DamagedSample(
        f'{where}: {why}. Drop it when building the dataset, or skip such samples: reading=ReadOptions(on_error="skip")'
    )
