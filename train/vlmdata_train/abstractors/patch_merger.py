"""The merger of Qwen2-VL and Qwen2.5-VL: it concatenates the patches of each square into one token, then applies an MLP.

P images, N patches (one square of s x s patches after the other), C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vlmdata_train.abstractors.pixel_shuffle import coarser
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class Merger(nn.Module):
    """The network of `PatchMerger`, for images of any shape: patches (P, N, C) -> tokens (P, N / s^2, D).

    The patches are ordered square by square.
    """

    def __init__(self, in_width: int, out_width: int, side: int, norm: nn.Module) -> None:
        super().__init__()
        inner = in_width * side**2
        self.count = side**2
        self.norm = norm
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, out_width))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each patch, then turn each square into one token."""
        return self.mlp(self.norm(features).unflatten(1, (-1, self.count)).flatten(2))


@dataclass(frozen=True)
class PatchMerger:
    """Merges the features of a tower that returns patches square by square, such as `qwen2_vl`."""

    side: int = 2
    norm: Literal["layer", "rms"] = "layer"  # layer norm in Qwen2-VL, RMS norm in Qwen2.5-VL

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens, one for each square of `side` x `side` patches."""
        return coarser(grid, self.side)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts any number of squares."""
        norm = nn.RMSNorm(facts.width, eps=1e-6) if self.norm == "rms" else nn.LayerNorm(facts.width, eps=1e-6)
        return Merger(facts.width, out_width, self.side, norm)
