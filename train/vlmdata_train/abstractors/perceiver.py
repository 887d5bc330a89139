"""Flamingo's Perceiver resampler: a fixed number of learned latents attends to the patches in every layer.

Source: Alayrac et al. 2022, Flamingo. The layers are built as in Idefics 1.

P tiles, N patches, L latents, C and D widths, H heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class LatentAttention(nn.Module):
    """Latents attend to the patches and to themselves, in one softmax."""

    def __init__(self, width: int, heads: int, head_width: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.context_norm, self.latents_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(head_width) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(head_width) if qk_norm else nn.Identity()
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, heads * head_width, bias=False)
        self.value = nn.Linear(width, heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, context: Tensor, latents: Tensor) -> Tensor:
        """Return the update that the caller adds to the latents: (P, N, C), (P, L, C) -> (P, L, C)."""
        latents = self.latents_norm(latents)
        both = torch.cat([self.context_norm(context), latents], 1)  # (P, N + L, C)
        query, key, value = (
            states.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (P, H, tokens, E)
            for states in (self.query(latents), self.key(both), self.value(both))
        )
        read = functional.scaled_dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        return self.output(read.transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """The network of `Perceiver`: patches (P, N, C) -> latents (P, L, D)."""

    def __init__(self, width: int, out_width: int, part: Perceiver) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(part.latents, width))
        self.attentions = nn.ModuleList(
            [LatentAttention(width, part.heads, part.head_width, part.qk_norm) for _ in range(part.layers)]
        )
        self.mlps = nn.ModuleList([_mlp(width) for _ in range(part.layers)])
        self.norm = nn.LayerNorm(width)
        self.project = nn.Identity() if width == out_width else nn.Linear(width, out_width)

    def forward(self, features: Tensor) -> Tensor:
        """Run the layers, all of which attend to the same patches: (P, N, C) -> (P, L, D)."""
        latents = self.latents.to(features.dtype).expand(len(features), -1, -1)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            latents = latents + attention(features, latents)
            latents = latents + mlp(latents)
        return self.project(self.norm(latents))


def _mlp(width: int) -> nn.Module:
    """Return an MLP that begins with a layer norm."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.ReLU(), nn.Linear(4 * width, width, bias=False)
    )


@dataclass(frozen=True)
class Perceiver:
    """Flamingo's resampler. The latents have the tower's width.

    If the language model has a different width, a linear layer follows.
    """

    latents: int = 64  # as in Flamingo
    layers: int = 6  # as in Flamingo
    heads: int = 8  # as in OpenFlamingo
    head_width: int = 64  # as in OpenFlamingo
    qk_norm: bool = False  # layer norms on queries and keys, as in Idefics 80B

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns. Its extra tokens are the latents."""
        return Grid(0, 0, extra=self.latents)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the resampler. It accepts any number of patches."""
        return Resampler(facts.width, out_width, self)
