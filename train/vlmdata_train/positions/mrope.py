"""Qwen2-VL's M-RoPE: each token has positions on the axes time, row and column. Each axis has a share of the rotary angles.

Wang et al. 2024, Qwen2-VL. The three positions of a text token are equal. All tokens of an image have the same time. The text
after an image starts at this time plus the longer side of the image's grid. B rows, T tokens, R runs of image tokens, E head
width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vlmdata_train.model.batch import Batch


def grid_positions(marks: Tensor, segment_ids: Tensor, grids: Tensor) -> Tensor:
    """Return the positions (3, B, T) of time, row and column, without a host sync.

    `marks` (B, T) is true at image tokens, `segment_ids` (B, T) numbers the samples in each row, and `grids` (R, 3) has the
    numbers of frames, rows and columns of each run of image tokens. A text token increases the positions after it by 1. The
    last token of a run increases them by the longest side of its grid.
    """
    grids = grids.to(marks.device)
    if not len(grids):
        grids = torch.ones(1, 3, dtype=torch.int64, device=marks.device)
    ends = grids.prod(1).cumsum(0)  # number of image tokens up to the end of each run
    number = marks.flatten().cumsum(0).view_as(marks)  # number of image tokens up to and including this token
    run = torch.searchsorted(ends, number).clamp(max=len(grids) - 1)
    sides = grids[run]  # (B, T, 3)
    size = sides.prod(-1)
    within = number - 1 - (ends[run] - size)
    adds = torch.where(marks, torch.where(within == size - 1, sides.amax(-1), 0), 1)
    before = adds.cumsum(1) - adds
    begins = torch.ones_like(marks)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    start = torch.where(begins, torch.arange(marks.shape[1], device=marks.device), 0).cummax(1).values
    base = before - before.gather(1, start)
    frame, row = within // (sides[..., 1] * sides[..., 2]), within // sides[..., 2] % sides[..., 1]
    column = within % sides[..., 2]
    return torch.stack([base + torch.where(marks, axis, 0) for axis in (frame, row, column)])


class GridRotary(nn.Module):
    """Computes a language model's rotary angles. Each angle depends on one of a token's positions: time, row or column."""

    def __init__(self, rotary: Any, sections: tuple[int, ...]) -> None:
        super().__init__()
        self.rotary, self.sections = rotary, list(sections)
        if sum(sections) != len(rotary.inv_freq):
            raise ValueError(
                f"mrope: `sections` sum to {sum(sections)}, but the model has {len(rotary.inv_freq)} rotary angles"
            )

    def forward(self, states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and the sines of the angles at positions (3, B, T), each (B, T, E)."""
        own = self.share_out(position_ids[..., None].float() * self.rotary.inv_freq.float())
        both = torch.cat([own, own], -1)
        scale = self.rotary.attention_scaling
        return (both.cos() * scale).to(states.dtype), (both.sin() * scale).to(states.dtype)

    def share_out(self, angles: Tensor) -> Tensor:
        """Return each angle as computed for one axis: (3, B, T, E / 2) -> (B, T, E / 2).

        The angles of section `n` belong to axis `n % 3`.
        """
        return torch.cat([axis[number % 3] for number, axis in enumerate(angles.split(self.sections, -1))], -1)


@dataclass(frozen=True)
class Mrope:
    """Positions of Qwen2-VL. They need a preprocessing that makes one tile of about the image's size, such as `smart_size`."""

    rotary: ClassVar[type[GridRotary]] = GridRotary  # divides the angles among the axes
    sections: tuple[int, ...] = (16, 24, 24)  # as in Qwen2-VL, for heads of width 128

    def position_ids(self, batch: Batch, image_token_id: int) -> Tensor:
        """Return (3, B, T) positions, which restart at every segment. Raises ValueError for image tokens without a grid."""
        if not bool(batch.grids.all()):  # on the host
            raise ValueError(
                "positions: mrope needs image tokens in a grid. Use a preprocessing that makes one tile of about the image's"
                " size, such as smart_size"
            )
        return grid_positions(batch.input_ids == image_token_id, batch.segment_ids, batch.grids)

    def after(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """Return the next position of each row, which is its largest position plus 1: (B,).

        `lengths` (B,) is the number of tokens in each row. The padding after them does not count.
        """
        is_own = torch.arange(positions.shape[2], device=positions.device) < lengths[:, None]
        return positions.amax(0).masked_fill(~is_own, -1).amax(1) + 1

    def prepare(self, language: Any) -> None:
        """Replace the model's rotary angles. Raises ValueError if the model has none."""
        if not hasattr(language.base_model, "rotary_emb"):
            raise ValueError(f"positions: {type(language).__name__} has no rotary positions, which mrope needs")
        language.base_model.rotary_emb = self.rotary(language.base_model.rotary_emb, self.sections)
