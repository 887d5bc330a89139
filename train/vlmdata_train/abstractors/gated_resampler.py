"""Idefics2's connector: a gated MLP to the language model's width, then a resampler with grouped heads.

Source: Laurençon et al. 2024, What matters when building vision-language models?

P images, N patches, L latents, H query heads, K key heads, E head width, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class GatedMlp(nn.Module):
    """An MLP without biases, (..., C) -> (..., D). The SiLU of one projection gates the other projection."""

    def __init__(self, width: int, inner: int, out_width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, out_width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Gate and project: (..., C) -> (..., D)."""
        return self.down(functional.silu(self.gate(states)) * self.up(states))


class Layer(nn.Module):
    """A layer in which latents attend to the patches and to themselves, and then pass through an MLP."""

    def __init__(self, width: int, part: GatedResampler) -> None:
        super().__init__()
        self.head_width = part.head_width
        self.latents_norm, self.context_norm, self.mlp_norm = (nn.RMSNorm(width, eps=part.eps) for _ in range(3))
        self.query = nn.Linear(width, part.heads * part.head_width, bias=False)
        self.key = nn.Linear(width, part.key_heads * part.head_width, bias=False)
        self.value = nn.Linear(width, part.key_heads * part.head_width, bias=False)
        self.output = nn.Linear(part.heads * part.head_width, width, bias=False)
        self.mlp = GatedMlp(width, 4 * width, width)

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """Return the new latents: (P, L, D), (P, N, D) -> (P, L, D)."""
        queries = self.latents_norm(latents)
        both = torch.cat([self.context_norm(context), queries], 1)
        query, key, value = (
            states.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for states in (self.query(queries), self.key(both), self.value(both))
        )
        read = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        latents = latents + self.output(read.transpose(1, 2).flatten(2))
        return latents + self.mlp(self.mlp_norm(latents))


class Connector(nn.Module):
    """The network of `GatedResampler`: patches (P, N, C) -> latents (P, L, D)."""

    def __init__(self, in_width: int, out_width: int, part: GatedResampler) -> None:
        super().__init__()
        self.project = GatedMlp(in_width, part.mlp_width or 4 * out_width, out_width)
        self.latents = nn.Parameter(torch.ones(part.latents, out_width))  # Idefics2 starts with ones
        self.layers = nn.ModuleList([Layer(out_width, part) for _ in range(part.layers)])
        self.norm = nn.RMSNorm(out_width, eps=part.eps)

    def forward(self, features: Tensor) -> Tensor:
        """Project the patches to the language model's width, then resample them: (P, N, C) -> (P, L, D)."""
        context = self.project(features)
        latents = self.latents.to(context.dtype).expand(len(context), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context)
        return self.norm(latents)


@dataclass(frozen=True)
class GatedResampler:
    """Idefics2's connector, with Idefics2's defaults. All latents start with the same values."""

    latents: int = 64
    layers: int = 3
    heads: int = 16
    key_heads: int = 4
    head_width: int = 96
    mlp_width: int | None = None  # inner width of the first MLP; Idefics2: intermediate size of its language model; None: 4 D
    eps: float = 1e-6

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns. Its extra tokens are the latents."""
        return Grid(0, 0, extra=self.latents)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the connector. It accepts any number of patches."""
        return Connector(facts.width, out_width, self)
