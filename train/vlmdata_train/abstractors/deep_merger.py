"""Qwen3-VL's mergers: one for the tower's last layer, and one for each earlier layer whose features the tower returns.

The fusion `deep_tokens` reads the results.

P images, N patches (one square of s x s patches after the other), L earlier layers, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdata_train.abstractors.patch_merger import Merger
from vlmdata_train.abstractors.pixel_shuffle import coarser
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class SquareMerger(Merger):
    """A merger that normalises all values of a square together. `Merger` normalises each patch separately."""

    def forward(self, features: Tensor) -> Tensor:
        """Concatenate the patches of each square, normalise, and apply the MLP: (P, N, C) -> (P, N / s^2, D)."""
        return self.mlp(self.norm(features.unflatten(1, (-1, self.count)).flatten(2)))


class DeepMergers(nn.Module):
    """The mergers of all layers: (P, N, (1 + L) C) -> (P, N / s^2, (1 + L) D), for images of any shape."""

    def __init__(self, in_width: int, out_width: int, side: int, levels: int) -> None:
        super().__init__()
        self.last = Merger(in_width, out_width, side, nn.LayerNorm(in_width, eps=1e-6))
        whole = in_width * side**2
        self.deeper = nn.ModuleList(
            SquareMerger(in_width, out_width, side, nn.LayerNorm(whole, eps=1e-6)) for _ in range(levels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Merge the features of each layer with the layer's own merger, and concatenate the results."""
        mergers = [self.last, *self.deeper]
        return torch.cat([merge(own) for merge, own in zip(mergers, features.chunk(len(mergers), -1), strict=True)], -1)


@dataclass(frozen=True)
class DeepMerger:
    """Merges the patches of each square, for a tower that also returns features of earlier layers, such as `qwen3_vl`."""

    side: int = 2

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens, one for each square of `side` x `side` patches."""
        return coarser(grid, self.side)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module, which has a merger for each layer and accepts any number of squares."""
        layers = 1 + facts.levels
        return DeepMergers(facts.width // layers, out_width // layers, self.side, facts.levels)
