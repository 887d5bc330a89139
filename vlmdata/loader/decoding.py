"""Decodes the bytes of a sample to pixels and text, for `stream(decode=...)`.

`python -m bench.loader_decoders` compares the decoder with torchvision, Pillow, cv2 and simplejpeg; see docs/loader.md.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmdata.arguments import (
    check_bool,
    check_callable,
    check_choice,
    check_weights,
    check_whole,
    check_whole_or_none,
    wrong,
)
from vlmdata.errors import InputError
from vlmdata.extras import check_installed
from vlmdata.grounding.frame import Frame
from vlmdata.grounding.write import MIN_VISIBLE, check_form
from vlmdata.images.augmentations import APPLYING_BYTES, Operation, apply
from vlmdata.images.budget import MAX_MEMORY_MB, MAX_PIXELS
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.formats import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS
from vlmdata.images.header import read_header
from vlmdata.images.resize import MODES, ResizeRule, Transform, crop_or_pad, scale_to, transform
from vlmdata.loader.captions import drawn_caption
from vlmdata.loader.read_samples import DamagedSample, Sample
from vlmdata.loader.stored_augment import SHOWN_BOXES, Placed, entry_of, operations_of
from vlmdata.loader.written_boxes import with_written_boxes

Pixels = NDArray[np.uint8]
FILTERS = ("bilinear", "area")
Augment = Callable[[Pixels, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Decode:
    """Decodes a sample: images to upright (H, W, 3) uint8 sRGB pixels, captions to str, and JSON to Python values.

    `mode` sets how images are resized to `size`, as in ResizeRule; size=None keeps the size of each image. filter="bilinear" is
    torch's antialiased filter. filter="area" is cv2's area average, which does not need torch. `augment(pixels, generator)`
    returns the augmented pixels. `generator` depends only on the sample, the epoch and the member's name, so a resumed run
    draws the same numbers on any number of ranks and workers. With alternatives=True, each epoch draws one caption: the one in
    `txt`, or one of the list "alternatives" in the sample's JSON. `captions` gives weights to the origins of captions, such as
    {"raw": 0.3, "synthetic": 0.7}: see `vlmdata.loader.captions`. Without it, all captions of a sample are equally likely.
    `grounding` names the form in which the boxes of texts are written for the resized pixels, such as "qwen2_vl" (a file of
    vlmdata/grounding/forms). A box counts if at least the share `min_visible` of it is in the pixels. With None, texts keep the
    fractions of the stored image.

    `stored_augment` is the name of the step `augment` in the dataset's recipe. One of the views that it stored is applied to
    each image before the resize, another one in each epoch, and the sample's JSON gets `shown_boxes` beside `boxes`: the boxes
    in pixels of the returned picture. Without `grounding`, an image whose texts have boxes is not moved. `augment` is applied
    after the resize, and moves no boxes.

    An image is refused before decoding if its header states more than `max_pixels` pixels, or if decoding would need more than
    `max_memory_mb` MB of memory. A call raises DamagedSample for a refused or unreadable image, for invalid JSON, and for a
    caption that is not UTF-8. Errors of `augment` are not caught.
    """

    size: int | None = None
    mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = "center_crop"
    filter: Literal["bilinear", "area"] = "bilinear"
    augment: Augment | None = None
    alternatives: bool = True
    max_pixels: int = MAX_PIXELS
    max_memory_mb: int = MAX_MEMORY_MB
    captions: Mapping[str, float] | None = None
    grounding: str | None = None
    min_visible: float = MIN_VISIBLE
    stored_augment: str | None = None

    def __post_init__(self) -> None:
        check_whole_or_none(1, size=self.size)
        check_choice(MODES, mode=self.mode)
        check_choice(FILTERS, filter=self.filter)
        check_callable(augment=self.augment)
        if self.stored_augment is not None and not (isinstance(self.stored_augment, str) and self.stored_augment):
            raise wrong("stored_augment", "the name of a step `augment`, such as 'augment'", self.stored_augment)
        check_bool(alternatives=self.alternatives)
        check_whole(1, max_pixels=self.max_pixels, max_memory_mb=self.max_memory_mb)
        if self.captions is not None:
            check_weights(captions=self.captions)
            if not self.alternatives:
                raise InputError("captions has weights for a sample's captions, but alternatives=False reads only `txt`")
        if self.grounding is not None:
            check_form(self.grounding)
            if self.augment is not None:
                raise InputError("augment may move what boxes show, so it cannot be used with grounding")
        if not 0 <= self.min_visible <= 1:
            raise InputError(f"min_visible must be from 0 to 1, not {self.min_visible!r}")
        if self.size is not None and self.filter == "bilinear":
            check_installed(["torch"], "Decode with the filter 'bilinear' (not with 'area')")

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample with its images, captions and JSON decoded.

        Other members keep their bytes. Raises DamagedSample if one of the decoded members is damaged or too large.
        """
        result: Sample = {}
        placed: dict[str, Placed] = {}  # each image, by its member
        if self.stored_augment is not None and isinstance(sample.get("json"), bytes):
            sample = {**sample, "json": _json(sample["json"], sample, "json")}  # read once for all images
        for name, value in sample.items():
            extension = name.rpartition(".")[2]
            if not isinstance(value, bytes):
                result[name] = value
            elif extension in IMAGE_EXTENSIONS:
                result[name], placed[name] = self._image(value, sample, name)
                entry = None if self.stored_augment is None else entry_of(sample.get("json"), name)
                if entry is not None and isinstance(entry.get("boxes"), list):
                    entry[SHOWN_BOXES] = placed[name].shown_boxes(entry["boxes"])
            elif extension in CAPTION_EXTENSIONS:
                result[name] = _caption(value, sample, name)
            elif extension == "json":
                result[name] = _json(value, sample, name)
            else:
                result[name] = value
        if self.grounding is not None:  # before another caption is drawn, because the spans belong to the main one
            result = with_written_boxes(result, placed, self.grounding, self.min_visible)
        if self.alternatives and isinstance(result.get("txt"), str) and isinstance(result.get("json"), dict):
            result["txt"] = drawn_caption(result["txt"], result["json"], sample["__seed__"], self.captions)
        return result

    def image(self, data: bytes, sample: Sample, name: str) -> Pixels:
        """Return one image as (H, W, 3) uint8 pixels, after decoding, resizing and augmentation.

        Raises DamagedSample if the image cannot be decoded.
        """
        return self._image(data, sample, name)[0]

    def _image(self, data: bytes, sample: Sample, name: str) -> tuple[Pixels, Placed]:
        """Return the pixels of an image, and how it was augmented and resized."""
        try:
            header = read_header(data)
            change = self._resize_of(*header.upright_size)
            operations = self.operations(sample, name)
            target = change.scaled if self.size and not operations else None  # operations count in pixels of the stored image
            beside = APPLYING_BYTES * math.prod(change.source) if operations else 0
            pixels = decode(
                data, max_pixels=self.max_pixels, max_memory_mb=self.max_memory_mb, target=target, beside=beside, header=header
            ).pixels
        except ImageError as error:
            raise _damaged(sample, name, str(error)) from error
        pixels = apply(pixels, operations)
        if self.size:
            scale = scale_to if self.filter == "area" else _scale_by_torch
            pixels = crop_or_pad(scale(pixels, change.scaled), change)
        if self.augment is not None:
            pixels = self.augment(pixels, generator_of(sample, name))
        return pixels, Placed(operations, change)

    def operations(self, sample: Sample, name: str) -> tuple[Operation, ...]:
        """Return the stored operations that are applied to one image in this epoch: none without `stored_augment`.

        Raises InputError if the dataset has no such column, and DamagedSample if the sample's value cannot be read.
        """
        if self.stored_augment is None:
            return ()
        facts = sample.get("json")
        facts = _json(facts, sample, "json") if isinstance(facts, bytes) else facts
        try:
            return operations_of(facts, name, self.stored_augment, sample["__seed__"], moves=self.grounding is not None)
        except InputError:
            raise
        except ValueError as error:
            raise _damaged(sample, "json", str(error)) from error

    def frame_of(self, sample: Sample, name: str) -> Frame:
        """Return where the stored image lies in the picture that is returned for the member `name` of an undecoded sample.

        The frame includes the stored augmentation and the resize, but not `augment`. Raises DamagedSample if the image's header
        cannot be read.
        """
        try:
            width, height = read_header(sample[name]).upright_size
        except ImageError as error:
            raise _damaged(sample, name, str(error)) from error
        return Placed(self.operations(sample, name), self._resize_of(width, height)).frame

    def _resize_of(self, width: int, height: int) -> Transform:
        return transform(ResizeRule(self.mode, self.size) if self.size else ResizeRule("no"), width, height)


def generator_of(sample: Sample, name: str = "") -> np.random.Generator:
    """Return a random generator that depends only on the sample, its epoch and the member `name`."""
    return np.random.Generator(np.random.PCG64([sample["__seed__"], *name.encode()]))


@dataclass(frozen=True)
class RandomCrop:
    """An augmentation that crops a random part of the image and scales that part to the size of the image.

    `area` is the range of the part's area, as a share of the image's area. `shape` is the range of the part's width divided by
    its height. `mirror` is the probability that the part is mirrored. Mirroring is off by default, because it swaps left and
    right and makes text unreadable. Source: Szegedy et al. 2015. open_clip uses the same range of the area for training on
    captions.
    """

    area: tuple[float, float] = (0.9, 1.0)
    shape: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.0

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Return the cropped pixels, scaled to the size of the input."""
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
    pixels = pixels if pixels.flags.writeable else pixels.copy()  # Pillow returns read-only arrays, about which torch warns
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (1, 3, H, W) in channels-last layout, which is fastest in torch
    return interpolate(planes, size[::-1], mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def text_of(data: bytes) -> str:
    """Return a caption as a string without a byte order mark.

    Raises UnicodeDecodeError if the bytes are not UTF-8, or if at least a quarter of the characters are null, as in UTF-16.
    """
    text = data.decode()
    if "\0" in text and 4 * text.count("\0") >= len(text):  # the text is UTF-16 or UTF-32 without a byte order mark
        raise UnicodeDecodeError("utf-8", data, data.index(b"\0"), len(data), "null characters")
    return text.removeprefix("\ufeff")


def _caption(data: bytes, sample: Sample, name: str) -> str:
    try:
        return text_of(data)
    except UnicodeDecodeError as error:
        raise _damaged(sample, name, f"the caption is not UTF-8: {error}") from error


def _json(data: bytes, sample: Sample, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(sample, name, f"the member is not valid JSON: {error}") from error


def _damaged(sample: Sample, name: str, why: str) -> DamagedSample:
    where = f"{sample['__url__']}, sample {sample['__key__']!r}, member {name!r}"
    return DamagedSample(
        f"{where}: {why}. Drop the sample when you build the dataset,"
        ' or skip damaged samples with reading=ReadOptions(on_error="skip")'
    )
