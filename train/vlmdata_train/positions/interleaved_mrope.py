"""M-RoPE with the axes interleaved over the rotary angles, so that each axis has high and low frequencies.

Bai et al. 2025, Qwen3-VL. B rows, T tokens, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmdata_train.positions.mrope import GridRotary, Mrope


class TurnRotary(GridRotary):
    """Rotary angles. Angle `i` belongs to axis `i % 3`, or to time if that axis already has all its angles."""

    def __init__(self, rotary: Any, sections: tuple[int, ...]) -> None:
        super().__init__(rotary, sections)
        number = torch.arange(sum(sections))
        turn = number % 3
        is_left = number < 3 * torch.tensor(sections)[turn]
        self.register_buffer("axis", torch.where(is_left, turn, 0), persistent=False)

    def share_out(self, angles: Tensor) -> Tensor:
        """Select the axis of each angle: (3, B, T, E / 2) -> (B, T, E / 2)."""
        axis = self.get_buffer("axis")
        return angles.gather(0, axis.expand(1, *angles.shape[1:]))[0]


@dataclass(frozen=True)
class InterleavedMrope(Mrope):
    """Positions of Qwen3-VL. They need a preprocessing that makes one tile of about the image's size, such as `smart_size`."""

    rotary = TurnRotary
    sections: tuple[int, ...] = (24, 20, 20)  # as in Qwen3-VL, for heads of width 128
