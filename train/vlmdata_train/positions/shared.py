"""CogVLM's positions: all tokens of an image have the same position, as if the image were one word.

Wang et al. 2023, CogVLM. B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmdata_train.model.batch import Batch


def shared_positions(marks: Tensor, segment_ids: Tensor, counts: Tensor, ends: bool = False) -> Tensor:
    """Return positions (B, T), without a host sync.

    `marks` (B, T) is true at image tokens, `segment_ids` (B, T) numbers the samples in each row, and `counts` has the number
    of tokens of each image. With `ends`, the first and the last token of each image have positions of their own.
    """
    number = marks.flatten().cumsum(0).view_as(marks)  # number of image tokens up to and including this token
    counts = counts.to(marks.device)
    last = counts.cumsum(0)
    steps = torch.cat([last - counts + 1, last - 1, last]) if ends else last  # the position increases after these image tokens
    adds = (~marks | torch.isin(number, steps)).long()
    before = adds.cumsum(1) - adds
    begins = torch.ones_like(marks)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    start = torch.where(begins, torch.arange(marks.shape[1], device=marks.device), 0).cummax(1).values
    return before - before.gather(1, start)


@dataclass(frozen=True)
class Shared:
    """One position per image, for any fusion. The result differs from `rope` only if an image has several tokens."""

    # the first and the last token of each image have positions of their own; CogVLM: true, with `gated_mlp: {ends: true}`
    ends: bool = False

    def position_ids(self, batch: Batch, image_token_id: int) -> Tensor:
        """Return (B, T) positions, which restart at every segment."""
        return shared_positions(batch.input_ids == image_token_id, batch.segment_ids, batch.image_token_counts, self.ends)

    def after(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """Return the last position of each row plus 1: (B,). `lengths` (B,) counts a row's tokens without padding."""
        return positions.gather(1, lengths[:, None] - 1)[:, 0] + 1

    def prepare(self, language: Any) -> None:
        """Change nothing, because every language model accepts these positions."""
