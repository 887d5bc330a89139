"""Build a batch: put prompts into the rows of the batch, and decode the images of the prompts.

B rows, T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata_train.data.document import Picture
from vlmdata_train.data.prompt import Prompt, truncate
from vlmdata_train.model.batch import IGNORE, Batch
from vlmdata_train.model.image_plan import ImagePlan


@dataclass(frozen=True)
class Ready:
    """The prompt of one sample, and the sample's origin."""

    prompt: Prompt
    source: str  # name of the sample's dataset
    key: str  # "TAR KEY", or only the key if an answer is generated


def build_batch(row: list[Ready], plan: ImagePlan, pad_id: int, *, packed_tokens: int | None, broken: Counter[str]) -> Batch:
    """Return a batch of prompts, with their images decoded.

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
            assert isinstance(image, bytes)  # prompts hold sizes instead of bytes only while lengths are measured
            try:
                tiles.append(plan.preprocess(decode(image).pixels).pixels)
            except ImageError as error:
                broken[error.reason] += 1
                tiles.append(plan.preprocess(_grey(*size_of(image))).pixels)
                labels = [IGNORE] * len(labels)
        texts.append((ready.prompt.input_ids, labels))
    ids, all_labels, positions, segments = lay_out(texts, pad_id, packed_tokens)
    pixels = [tile for image in tiles for tile in image]
    has_one_size = len({tile.shape for tile in pixels}) == 1
    sizes = [size_of(image) for ready in row for image in ready.prompt.images]
    return Batch(
        input_ids=ids,
        labels=all_labels,
        position_ids=positions,
        segment_ids=segments,
        pixels=torch.stack(pixels) if has_one_size else pixels,
        image_token_counts=torch.tensor([c for r in row for c in r.prompt.image_counts], dtype=torch.int64),
        tile_counts=torch.tensor([len(t) for t in tiles], dtype=torch.int64),
        image_sizes=torch.tensor([(height, width) for width, height in sizes], dtype=torch.int64).reshape(-1, 2),
        sources=[r.source for r in row],
        keys=[r.key for r in row],
    )


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


def size_of(picture: Picture) -> tuple[int, int]:
    """Return the (width, height) of a picture. For an encoded image, this is the size after EXIF rotation.

    Raises ImageError if the size is unknown.
    """
    if not isinstance(picture, bytes):
        if min(picture) < 1:
            raise ImageError("corrupt", "the header of the image cannot be read")
        return picture
    return read_header(picture).upright_size


def tokens_of_picture(plan: ImagePlan, picture: Picture) -> int:
    """Return the number of tokens for a picture in the prompt. Raises ImageError if the picture's size is unknown."""
    return plan.tokens_of(*size_of(picture))


def _grey(width: int, height: int) -> np.ndarray:
    """Return a grey image, uint8 (height, width, 3)."""
    return np.full((height, width, 3), 128, np.uint8)
