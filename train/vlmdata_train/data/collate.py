"""Build a batch: put prompts into the rows of the batch, and decode the images of the prompts.

B rows, T tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmdata.images.augmentations import APPLYING_BYTES, apply
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata_train.data.document import AugmentedPicture, Media, Video
from vlmdata_train.data.prompt import PlacedImage, Prompt, truncate
from vlmdata_train.model.batch import IGNORE, Batch
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.written import Piece, Place


@dataclass(frozen=True)
class Ready:
    """The prompt of one sample, and the sample's origin."""

    prompt: Prompt
    source: str  # name of the sample's dataset
    key: str  # "TAR KEY", or only the key if an answer is generated


def build_batch(row: list[Ready], plan: ImagePlan, pad_id: int, *, packed_tokens: int | None, broken: Counter[str]) -> Batch:
    """Return a batch of prompts, with their images and videos decoded.

    With `packed_tokens`, all prompts share one row of that many tokens. With None, each prompt has a padded row. An image that
    fails to decode becomes grey, and its sample has no loss. `broken` counts such images by reason.
    """
    tiles: list[Sequence[Tensor]] = []  # (3, H, W) each, of each image
    texts: list[tuple[list[int], list[int]]] = []
    if packed_tokens is not None:
        row = _within(row, packed_tokens)
    for ready in row:
        labels = ready.prompt.labels
        for image in ready.prompt.images:
            try:
                tiles.append(decode_tiles(image, plan))
            except ImageError as error:
                broken[error.reason] += 1
                tiles.append(decode_tiles(image, plan, is_grey=True))
                labels = [IGNORE] * len(labels)
        texts.append((ready.prompt.input_ids, labels))
    ids, all_labels, positions, segments = lay_out(texts, pad_id, packed_tokens)
    pixels = [tile for image in tiles for tile in image]
    has_one_size = len({tile.shape for tile in pixels}) == 1
    images = [image for ready in row for image in ready.prompt.images]
    runs = [run for image in images for run in image.runs]
    sizes = [size_of(image.picture) for image in images]
    times = [time for image, own in zip(images, tiles, strict=True) for time in _times(image.picture, len(own), plan)]
    return Batch(
        input_ids=ids,
        labels=all_labels,
        position_ids=positions,
        segment_ids=segments,
        pixels=torch.stack(pixels) if has_one_size else pixels,
        image_token_counts=_ints([image.tokens for image in images]),
        grids=_ints([(run.frames, run.rows, run.columns) for run in runs]).view(-1, 3),
        intervals=torch.tensor([run.interval for run in runs], dtype=torch.float32),
        tile_counts=_ints([len(t) for t in tiles]),
        image_sizes=_ints([(height, width) for width, height in sizes]).view(-1, 2),
        of_sample=_ints([number for number, ready in enumerate(row) for _ in ready.prompt.images]),
        is_video=torch.tensor([isinstance(image.picture, Video) for image in images], dtype=torch.bool),
        times=torch.tensor(times, dtype=torch.float32),
        questions=_padded([ready.prompt.question for ready in row]),
        sources=[r.source for r in row],
        keys=[r.key for r in row],
    )


def decode_tiles(image: PlacedImage, plan: ImagePlan, *, is_grey: bool = False) -> Sequence[Tensor]:
    """Return the tiles of an image or a video, uint8 (3, H, W) each, with grey pixels if `is_grey` is True.

    Several frames of a video may share a tile, which then has more channels. Raises ImageError if an image cannot be decoded.
    """
    item, frames = image.picture, []
    for picture in item.frames if isinstance(item, Video) else [item]:
        assert isinstance(picture, bytes | AugmentedPicture)  # prompts hold sizes only while lengths are measured
        frames.append(_grey(*size_of(picture)) if is_grey else pixels_of(picture))
    if isinstance(item, Video):
        return list(plan.video.prepare(frames, plan))
    return plan.preprocess(frames[0], several=image.several).pixels


def pixels_of(picture: bytes | AugmentedPicture) -> np.ndarray:
    """Return the pixels of an encoded image, uint8 (H, W, 3), after its operations. Raises ImageError."""
    if isinstance(picture, bytes):
        return decode(picture).pixels
    header = read_header(picture.data)
    return apply(
        decode(picture.data, header=header, beside=APPLYING_BYTES * math.prod(header.upright_size)).pixels, picture.operations
    )


def _times(item: Media, tiles: int, plan: ImagePlan) -> list[float]:
    """Return the time of each tile in its video, in seconds from the first frame, or 0 for each tile of an image."""
    if not isinstance(item, Video):
        return [0.0] * tiles
    seconds: list[float] = plan.video.tile_times(item.times)
    return [time - seconds[0] for time in seconds]


def _ints(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _padded(questions: list[list[int]]) -> Tensor:
    """Return ids as one tensor (S, L), padded with -1."""
    longest = max(map(len, questions), default=0)
    return _ints([ids + [-1] * (longest - len(ids)) for ids in questions]).view(len(questions), longest)


def lay_out(
    texts: list[tuple[list[int], list[int]]], pad_id: int, packed_tokens: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return input ids, labels, position ids and segment ids, (B, T) each, for texts given as (ids, labels).

    With `packed_tokens`, all texts share one row of that length. With None, each text has a row, which is padded to the
    length of the longest text.
    """
    if packed_tokens is not None:
        starts = [0]
        for ids, _ in texts:
            starts.append(starts[-1] + len(ids))
        places = [(0, start, i + 1) for i, start in enumerate(starts[:-1])]
        rows, length = 1, packed_tokens
    else:
        places = [(i, 0, 1) for i in range(len(texts))]
        rows, length = len(texts), max(len(ids) for ids, _ in texts)
    input_ids = torch.full((rows, length), pad_id)
    labels = torch.full((rows, length), IGNORE)
    positions = torch.zeros(rows, length, dtype=torch.int64)
    segments = torch.zeros(rows, length, dtype=torch.int32)
    for (row, start, segment), (own, answers) in zip(places, texts, strict=True):
        where = (row, slice(start, start + len(own)))
        input_ids[where] = torch.tensor(own)
        labels[where] = torch.tensor(answers)
        labels[row, start] = IGNORE  # a segment's first token has no earlier token that predicts it
        positions[where] = torch.arange(len(own))
        segments[where] = segment
    return input_ids, labels, positions, segments


def _within(row: list[Ready], tokens: int) -> list[Ready]:
    """Return the prompts, cut so that they have at most `tokens` tokens together.

    Cutting is necessary if an index holds wrong image sizes, because a prompt is then longer than its measured length.
    """
    kept = []
    for ready in row:
        prompt = truncate(ready.prompt, tokens)
        tokens -= len(prompt.input_ids)
        if prompt.input_ids:
            kept.append(replace(ready, prompt=prompt))
    return kept


def size_of(picture: Media) -> tuple[int, int]:
    """Return the (width, height) of a picture, or of the first frame of a video. EXIF rotation counts.

    Raises ImageError if the size is unknown.
    """
    if isinstance(picture, Video):
        return size_of(picture.frames[0])
    if isinstance(picture, AugmentedPicture):
        return size_of(picture.data)
    if not isinstance(picture, bytes):
        if min(picture) < 1:
            raise ImageError("corrupt", "the header of the image cannot be read")
        return picture
    return read_header(picture).upright_size


def write_media(plan: ImagePlan, item: Media, place: Place) -> list[Piece]:
    """Return the pieces that are written for an image or a video in a prompt. Raises ImageError if its size is unknown."""
    if isinstance(item, Video):
        return plan.write_video(item.times, *size_of(item), place)
    return plan.write(*size_of(item), place)


def _grey(width: int, height: int) -> np.ndarray:
    """Return a grey image, uint8 (height, width, 3)."""
    return np.full((height, width, 3), 128, np.uint8)
