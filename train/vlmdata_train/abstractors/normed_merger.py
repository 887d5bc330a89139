"""Mistral 3's projector: an RMS norm, a linear layer that turns each square of patches into one vector, then an MLP.

P images, N patches (one square of s x s patches after the other), C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vlmdata_train.abstractors.pixel_shuffle import coarser
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class Layers(nn.Module):
    """The network of `NormedMerger`, for images of any shape: patches (P, N, C) -> tokens (P, N / s^2, D).

    The patches are ordered square by square.
    """

    def __init__(self, width: int, out_width: int, part: NormedMerger) -> None:
        super().__init__()
        self.count = part.side**2
        self.norm = nn.RMSNorm(width, eps=part.eps)
        self.merge = nn.Linear(width * self.count, width, bias=False)
        first, second = nn.Linear(width, out_width, bias=part.bias), nn.Linear(out_width, out_width, bias=part.bias)
        self.mlp = nn.Sequential(first, nn.GELU(), second)

    def forward(self, features: Tensor) -> Tensor:
        """Turn each square into one token.

        The values of a square are ordered by channel, then by patch, to match Mistral 3's weights.
        """
        squares = self.norm(features).unflatten(1, (-1, self.count))  # (P, N / s^2, s^2, C)
        return self.mlp(self.merge(squares.transpose(2, 3).flatten(2)))


@dataclass(frozen=True)
class NormedMerger:
    """Merges the features of a tower that returns patches square by square, such as `mistral3`."""

    side: int = 2
    bias: bool = False  # biases in the MLP
    eps: float = 1e-5  # epsilon of the norm, the same as in the language model

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens, one for each square of `side` x `side` patches."""
        return coarser(grid, self.side)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts any number of squares."""
        return Layers(facts.width, out_width, self)
