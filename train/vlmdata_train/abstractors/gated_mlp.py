"""CogVLM's adapter: a linear layer, a layer norm and a GELU, then an MLP in which one projection gates another.

Source: Wang et al. 2023, CogVLM: Visual Expert for Pretrained Language Models.

P tiles, N patches, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmdata_train.abstractors import gated_resampler
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


@dataclass(frozen=True)
class GatedMlp:
    """Applies CogVLM's adapter to each feature: (P, N, C) -> (P, N, D). It has no biases except that of the norm.

    CogVLM adds a learned vector before and one after the patches. This part does not.
    """

    mlp_width: int | None = None  # CogVLM: the intermediate size of its language model, 11008; None: 4 D

    def __post_init__(self) -> None:
        if self.mlp_width is not None and self.mlp_width < 1:
            raise ValueError(f"mlp_width must be 1 or more, not {self.mlp_width}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layers."""
        gated = gated_resampler.GatedMlp(out_width, self.mlp_width or 4 * out_width, out_width)
        return nn.Sequential(nn.Linear(facts.width, out_width, bias=False), nn.LayerNorm(out_width), nn.GELU(), gated)
