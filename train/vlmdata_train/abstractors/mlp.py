"""Apply an MLP to each feature, as in LLaVA 1.5, ViP-LLaVA, Yi-VL and moondream2.

Source: Liu et al. 2023, Improved Baselines with Visual Instruction Tuning. P tiles, N patches, C and D widths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
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
    mlp_width: int | None = None  # width between the layers; None: D; moondream2: 8192

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"an MLP must have 1 layer or more, not {self.layers}")
        if self.mlp_width is not None and self.mlp_width < 1:
            raise ValueError(f"mlp_width must be 1 or more, not {self.mlp_width}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layers. The first linear layer changes the width."""
        modules: list[nn.Module] = [nn.LayerNorm(facts.width)] if self.norm else []
        widths = [facts.width, *[self.mlp_width or out_width] * (self.layers - 1), out_width]
        for number, (before, after) in enumerate(pairwise(widths)):
            modules += [ACTIVATIONS[self.activation]()] if number else []
            modules.append(nn.Linear(before, after, bias=self.bias))
            modules += [nn.LayerNorm(after)] if self.norm_after else []
        return nn.Sequential(*modules)
