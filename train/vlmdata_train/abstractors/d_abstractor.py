"""Honeybee's D-Abstractor: queries on a square grid read the patches with deformable attention around learned points.

Source: Cha et al. 2023, Honeybee: Locality-enhanced Projector. The layers are those of the decoder of Deformable DETR
(Zhu et al. 2020) for one feature map.

P images, N = r x c patches, Q = s x s queries, C, W and D widths, H heads, E head width, K points of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.abstractors.query_resampler import attend
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class DeformableAttention(nn.Module):
    """Each query reads the feature map at a few places around its reference point. It computes the places and their weights."""

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets, self.weights = nn.Linear(width, heads * points * 2), nn.Linear(width, heads * points)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Each head starts with places in its own direction, as in Deformable DETR.
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        with torch.no_grad():
            self.offsets.bias.copy_((directions[:, None] * torch.arange(1, points + 1)[:, None]).flatten())

    def forward(self, queries: Tensor, context: Tensor, places: Tensor, grid: Grid) -> Tensor:
        """Read the patches: queries (P, Q, W), patches (P, N, W), reference points (Q, 2) -> (P, Q, W).

        A reference point is an (x, y) in [0, 1]. An offset of 1 is one patch. Outside the image the features are 0.
        """
        exact = torch.promote_types(context.dtype, torch.float32)  # bf16 would move a place by up to a tenth of a patch
        size = torch.tensor([grid.columns, grid.rows], device=context.device, dtype=exact)
        offsets = self.offsets(queries).to(exact).unflatten(-1, (self.heads, self.points, 2))  # (P, Q, H, K, 2)
        where = places.to(exact)[:, None, None] + offsets / size
        weights = self.weights(queries).to(exact).unflatten(-1, (self.heads, self.points)).softmax(-1)  # (P, Q, H, K)
        picture = self.value(context).to(exact).transpose(1, 2).unflatten(1, (self.heads, -1))  # (P, H, E, N)
        picture = picture.flatten(0, 1).unflatten(2, (grid.rows, grid.columns))  # (P H, E, r, c)
        where = where.transpose(1, 2).flatten(0, 1)  # (P H, Q, K, 2)
        samples = functional.grid_sample(picture, 2 * where - 1, padding_mode="zeros", align_corners=False)  # (P H, E, Q, K)
        read = (samples * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)  # (P H, E, Q)
        return self.output(read.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2).to(context.dtype))


class Layer(nn.Module):
    """Self-attention of the queries, deformable attention to the patches, and an MLP. A norm follows each of the three."""

    def __init__(self, part: DAbstractor) -> None:
        super().__init__()
        width = part.width
        self.head_width = width // part.heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.reading = DeformableAttention(width, part.heads, part.points)
        self.mlp = nn.Sequential(nn.Linear(width, part.mlp_width), nn.ReLU(), nn.Linear(part.mlp_width, width))
        self.attention_norm, self.reading_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(part.dropout)

    def forward(self, states: Tensor, positions: Tensor, context: Tensor, places: Tensor, grid: Grid) -> Tensor:
        """Return the new states of the queries, (P, Q, W). `positions`, (P, Q, W), are added wherever a query is computed."""
        placed = states + positions
        read = attend(self.query(placed), self.key(placed), self.value(states), self.head_width)
        states = self.attention_norm(states + self.dropout(self.output(read)))
        states = self.reading_norm(states + self.dropout(self.reading(states + positions, context, places, grid)))
        return self.mlp_norm(states + self.dropout(self.mlp(states)))


class DeformableLayers(nn.Module):
    """The network of `DAbstractor`: patches (P, r c, C) -> tokens (P, s s, D)."""

    def __init__(self, in_width: int, out_width: int, grid: Grid, part: DAbstractor) -> None:
        super().__init__()
        self.grid, self.side = grid, part.side
        self.enter = nn.Identity() if in_width == part.width else nn.Linear(in_width, part.width)
        self.places = nn.Parameter(torch.randn(grid.tokens, part.width) * 0.02)  # learned position embeddings of the patches
        self.queries = nn.Parameter(torch.randn(part.side**2, part.width))
        # not torch.linspace: once transformers has replaced it, it may ignore the meta device
        steps = torch.arange(part.side) / max(part.side - 1, 1)
        down, across = (((count - 1) * steps + 0.5) / count for count in (grid.rows, grid.columns))
        points = torch.stack([across.repeat(part.side), down.repeat_interleave(part.side)], -1)
        self.points = nn.Parameter(points)  # (Q, 2), the learned reference point (x, y) of each query
        self.layers = nn.ModuleList(Layer(part) for _ in range(part.layers))
        self.project = nn.Identity() if part.width == out_width else nn.Linear(part.width, out_width)

    def forward(self, features: Tensor) -> Tensor:
        """Run the layers. The position of a query is the average of the patches around it: (P, r c, C) -> (P, s s, D)."""
        context = self.enter(features) + self.places.to(features.dtype)
        picture = context.transpose(1, 2).unflatten(2, (self.grid.rows, self.grid.columns))
        positions = functional.adaptive_avg_pool2d(picture, self.side).flatten(2).transpose(1, 2)  # (P, Q, W)
        states = self.queries.to(context.dtype).expand(len(context), -1, -1)
        for layer in self.layers:
            states = layer(states, positions, context, self.points, self.grid)
        return self.project(states)


@dataclass(frozen=True)
class DAbstractor:
    """Honeybee's D-Abstractor, with the defaults of Honeybee's published configuration."""

    side: int = 12  # Honeybee: 12, 16 and 24
    width: int = 1024
    layers: int = 6
    heads: int = 8
    points: int = 4  # places that each head of a query reads
    mlp_width: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.side, self.layers, self.heads, self.points) < 1:
            raise ValueError("side, layers, heads and points must be 1 or more")
        if self.width % self.heads:
            raise ValueError(f"width must be divisible by heads, but {self.width} is not divisible by {self.heads}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of `side` x `side` tokens, which is the same for any grid of patches."""
        return Grid(self.side, self.side)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module for tiles of this grid. Raises ValueError for a grid with a class token."""
        if grid.extra:
            raise ValueError("d_abstractor cannot use a class token, because it has no place in the grid of patches")
        return DeformableLayers(facts.width, out_width, grid, self)
