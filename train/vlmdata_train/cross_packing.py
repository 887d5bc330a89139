"""Which image each token may read, when samples and their images are packed together.

B rows, T tokens, I images, V features of all images, H heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlmdata_train.attention import BLOCK, block_mask, flex


def latest_images(marks: Tensor, segment_ids: Tensor) -> Tensor:
    """Return for each token the number of the latest image of its own sample, -1 before the first: (B, T) -> (B, T).

    Images are numbered through the whole batch in reading order; the image token itself sees its image.
    """
    count = marks.flatten().cumsum(0).view_as(marks)  # images up to and with this token
    place = torch.arange(marks.shape[1], device=marks.device)
    begins = torch.ones_like(marks, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    start = torch.where(begins, place, 0).cummax(1).values  # where each token's segment begins
    before = (count - marks.to(count.dtype)).gather(1, start)  # images before the segment
    return torch.where((count > before) & (segment_ids > 0), count - 1, -1)


@dataclass(eq=False)
class Seen:
    """The features of all images of a batch, and who may read them."""

    features: Tensor  # (V, W)
    of_feature: Tensor  # (V,) the image that each feature belongs to
    of_token: Tensor  # (B, T) the image that each token reads, or -1
    backend: str  # as in attention.py
    runs: list[tuple[int, int, int, int]] = field(default_factory=list)  # tokens start, end, features start, end
    mask: Any = None  # FlexAttention's BlockMask, tokens of all rows by features

    @staticmethod
    def of(features: Tensor, counts: list[int], of_token: Tensor, backend: str) -> Seen:
        """Plan who reads what; `counts` are the features of each image."""
        sizes = torch.tensor(counts, dtype=torch.int64, device=features.device)
        number = torch.arange(len(counts), device=features.device)
        of_feature = number.repeat_interleave(sizes, output_size=sum(counts))
        seen = Seen(features, of_feature, of_token, backend)
        if backend == "segments":
            seen.runs = reading_runs(of_token, counts)
        elif backend in ("flex", "varlen") and counts:
            seen.mask = reading_block_mask(of_token.flatten(), of_feature)
        return seen

    def at(self, places: Tensor) -> Seen:
        """Return what one token of each row, (B,), goes on to see: for the tokens generated after it."""
        return Seen(self.features, self.of_feature, self.of_token.gather(1, places[:, None]), self.backend)


def reading_runs(of_token: Tensor, counts: list[int]) -> list[tuple[int, int, int, int]]:
    """List neighbouring tokens (row-major) that read one image, with the range of its features."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    flat = of_token.flatten().cpu()
    cuts = [0, *(torch.nonzero(flat[1:] != flat[:-1]).flatten() + 1).tolist(), len(flat)]
    images = flat[cuts[:-1]].tolist()
    return [
        (start, end, starts[image], starts[image + 1])
        for start, end, image in zip(cuts[:-1], cuts[1:], images, strict=True)
        if image >= 0
    ]


def reading_block_mask(of_token: Tensor, of_feature: Tensor) -> Any:
    """Build FlexAttention's mask of tokens (Q,) by features (V,) from the range of images in each block."""

    def reads(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return of_token[q] == of_feature[k]

    none = torch.iinfo(of_token.dtype).max  # tokens that read nothing widen no range
    asked = of_token.where(of_token >= 0, none)
    low, high = _blocks(asked, none).amin(1), _blocks(of_token, -1).amax(1)
    first, last = _blocks(of_feature, none).amin(1), _blocks(of_feature, -1).amax(1)
    meets = (low[:, None] <= last) & (first <= high[:, None])
    return block_mask(meets[None], torch.zeros_like(meets)[None], reads, (len(of_token), len(of_feature)))


def _blocks(values: Tensor, filler: int) -> Tensor:
    missing = -len(values) % BLOCK
    return torch.cat([values, values.new_full((missing,), filler)]).view(-1, BLOCK)


def cross_attend(seen: Seen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(1, H, B T, E), (1, H, V, E) twice -> (B T, H, E); zeros for a token that reads no image."""
    if key.shape[2] == 0:  # no image: zeros that still reach every weight, for ranks must agree on who has a gradient
        out = query * 0 + key.sum() + value.sum()
    elif seen.backend == "segments":
        out = torch.zeros_like(query)
        for start, end, first, last in seen.runs:
            out[:, :, start:end] = functional.scaled_dot_product_attention(
                query[:, :, start:end], key[:, :, first:last], value[:, :, first:last]
            )
    elif seen.backend == "mask":
        visible = seen.of_token.flatten()[:, None] == seen.of_feature  # (B T, V)
        out = functional.scaled_dot_product_attention(query, key, value, visible)
        out = torch.where(visible.any(1)[:, None], out, 0.0)
    else:
        out = flex(query.is_cuda)(query, key, value, block_mask=seen.mask)
    return out[0].transpose(0, 1)
