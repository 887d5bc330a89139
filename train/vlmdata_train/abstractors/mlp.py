"""Apply an MLP to each feature, as in LLaVA 1.5, ViP-LLaVA and Yi-VL.

Source: Liu et al. 2023, Improved Baselines with Visual Instruction Tuning. P tiles, N patches, C and D widths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"), "relu": nn.ReLU, "silu": nn.SiLU,
}  # fmt: skip


@dataclass(frozen=True)
class Mlp:
    """Applies an MLP to each feature: linear layers with an activation between them, (P, N, C) -> (P, N, D)."""

    layers: int = 2  # LLaVA 1.5's mlp2x_gelu
    activation: Literal["gelu", "gelu_pytorch_tanh", "relu", "silu"] = "gelu"
    norm: bool = False  # a layer norm first, as in InternVL and ViP-LLaVA
    norm_after: bool = False  # a layer norm after each linear layer, as in Yi-VL's mlp2x_gelu_Norm
    bias: bool = True

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"an MLP must have 1 layer or more, not {self.layers}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layers. The first linear layer changes the width."""
        modules: list[nn.Module] = [nn.LayerNorm(facts.width)] if self.norm else []
        for number in range(self.layers):
            modules += [ACTIVATIONS[self.activation]()] if number else []
            modules.append(nn.Linear(out_width if number else facts.width, out_width, bias=self.bias))
            modules += [nn.LayerNorm(out_width)] if self.norm_after else []
        return nn.Sequential(*modules)
