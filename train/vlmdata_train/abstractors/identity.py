"""Leave the tower's features as they are, as in Idefics 1 without a resampler. P tiles, N patches, C and D widths."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


@dataclass(frozen=True)
class Identity:
    """Passes the features on: (P, N, C) -> (P, N, C), for example to `cross_attention`, which reads the tower's width.

    If the fusion needs a different width, a linear layer follows: (P, N, C) -> (P, N, D).
    """

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module, which has no weights if both widths are equal."""
        return nn.Identity() if facts.width == out_width else nn.Linear(facts.width, out_width)
