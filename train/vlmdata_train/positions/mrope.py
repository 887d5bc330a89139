"""Qwen2-VL's M-RoPE: each token has positions on the axes time, row and column. Each axis has a share of the rotary angles.

Wang et al. 2024, Qwen2-VL; Bai et al. 2025, Qwen2.5-VL (time in seconds). The three positions of a text token are equal. All
tokens of an image or of a frame have the same time. The text after an image or a video starts at the largest position before it
plus 1. B rows, T tokens, R runs of image tokens, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vlmdata_train.model.batch import Batch


def grid_positions(
    marks: Tensor, segment_ids: Tensor, grids: Tensor, steps: Tensor | None = None, *, time_counts: bool = True
) -> Tensor:
    """Return the positions (3, B, T) of time, row and column, without a host sync.

    `marks` (B, T) is true at image tokens, `segment_ids` (B, T) numbers the samples in each row, and `grids` (R, 3) has the
    numbers of frames, rows and columns of each run of image tokens. `steps` (R,) are the distances of frames in positions, 1 by
    default; positions are rounded down. A text token increases the positions after it by 1. The last token of a run increases
    them by the longest side of its grid. If `time_counts` is False, this is the longer side of a frame.
    """
    device = marks.device
    if not len(grids):
        grids, steps = torch.ones(1, 3, dtype=torch.int64), None
    grids, steps = grids.to(device), torch.ones(len(grids), device=device) if steps is None else steps.to(device)
    ends = grids.prod(1).cumsum(0)  # number of image tokens up to the end of each run
    number = marks.flatten().cumsum(0).view_as(marks)  # number of image tokens up to and including this token
    run = torch.searchsorted(ends, number).clamp(max=len(grids) - 1)
    sides = grids[run]  # (B, T, 3)
    size = sides.prod(-1)
    within = number - 1 - (ends[run] - size)
    longest = sides[..., 1:].amax(-1)
    if time_counts:
        longest = torch.maximum(longest, _time(sides[..., 0] - 1, steps[run]) + 1)
    adds = torch.where(marks, torch.where(within == size - 1, longest, 0), 1)
    before = adds.cumsum(1) - adds
    begins = torch.ones_like(marks)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    start = torch.where(begins, torch.arange(marks.shape[1], device=device), 0).cummax(1).values
    base = before - before.gather(1, start)
    frame, row = within // (sides[..., 1] * sides[..., 2]), within // sides[..., 2] % sides[..., 1]
    column = within % sides[..., 2]
    axes = (_time(frame, steps[run]), row, column)
    return torch.stack([base + torch.where(marks, axis, 0) for axis in axes])


def _time(frames: Tensor, steps: Tensor) -> Tensor:
    """Return the positions of frames, rounded down. An error of rounding in `steps` does not decrease a position."""
    return (frames * steps.double() + 1e-3).floor().long()


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

    tokens_per_second: float | None = None  # positions for each second of a video; Qwen2.5-VL: 2. None: one for each frame
    time_counts: bool = True  # text after a video starts after its largest position; False: as in transformers 5.24

    def position_ids(self, batch: Batch, image_token_id: int) -> Tensor:
        """Return (3, B, T) positions, which restart at every segment. Raises ValueError for image tokens without a grid."""
        if not bool(batch.grids.all()):  # on the host
            raise ValueError(
                "positions: mrope needs image tokens in a grid. Use a preprocessing that makes one tile of about the image's"
                " size, such as smart_size"
            )
        steps = None if self.tokens_per_second is None else batch.intervals * self.tokens_per_second
        marks = batch.input_ids == image_token_id
        return grid_positions(marks, batch.segment_ids, batch.grids, steps, time_counts=self.time_counts)

    def after(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """Return the next position of each row: (B,). It is the largest position plus 1, of all tokens or of the last token.

        `lengths` (B,) is the number of tokens in each row. The padding after them does not count.
        """
        if not self.time_counts:
            last = (lengths - 1)[None, :, None].expand(2, -1, 1)
            return positions[1:].gather(2, last)[..., 0].amax(0) + 1
        is_own = torch.arange(positions.shape[2], device=positions.device) < lengths[:, None]
        return positions.amax(0).masked_fill(~is_own, -1).amax(1) + 1

    def prepare(self, language: Any) -> None:
        """Replace the model's rotary angles. Raises ValueError if the model has none."""
        if not hasattr(language.base_model, "rotary_emb"):
            raise ValueError(f"positions: {type(language).__name__} has no rotary positions, which mrope needs")
        language.base_model.rotary_emb = self.rotary(language.base_model.rotary_emb, self.sections)
