"""The resampler of Qwen-VL and MiniCPM-V: learned queries attend to the patches in one layer, with fixed positions in two
dimensions.

Source: Bai et al. 2023, Qwen-VL; Yao et al. 2024, MiniCPM-V.

P tiles, N = r x c patches in reading order, Q queries, C and D widths, H heads, E head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid

EPS = 1e-6  # epsilon of the layer norms in both models


def sine_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Return a vector for each place of a grid, row by row: (r c, D). D must be divisible by 4.

    The first half of a vector encodes the column, and the second half encodes the row. Each half holds the sines of the place
    number times falling rates, then the cosines.
    """
    rates = 10_000 ** -(torch.arange(width // 4, device=device) / (width // 4))
    down = torch.arange(rows, device=device).repeat_interleave(columns)
    across = torch.arange(columns, device=device).repeat(rows)
    angles = [place[:, None] * rates for place in (across, down)]  # (r c, D / 4) each
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], -1)


def stretched(positions: Tensor, side: int, grid: Grid) -> Tensor:
    """Return the vectors of a grid of `side` x `side` places, interpolated to another grid: (side^2, D) -> (r c, D)."""
    picture = positions.T.unflatten(1, (side, side))[None]  # (1, D, side, side)
    picture = functional.interpolate(picture, (grid.rows, grid.columns), mode="bicubic", align_corners=False)
    return picture[0].flatten(1).T


def attend(query: Tensor, key: Tensor, value: Tensor, head_width: int) -> Tensor:
    """Return the attention of heads of this width, without linear layers: (P, Q, D), (P, N, D), (P, N, D) -> (P, Q, D)."""
    heads = (states.unflatten(-1, (-1, head_width)).transpose(1, 2) for states in (query, key, value))  # (P, H, tokens, E)
    return functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


class QueryAttention(nn.Module):
    """The network of `QueryResampler`: patches (P, N, C) -> tokens (P, Q, D), for tiles of any size."""

    takes_grid = True

    def __init__(self, in_width: int, out_width: int, grid: Grid, part: QueryResampler) -> None:
        super().__init__()
        self.grid, self.head_width = grid, part.head_width
        self.side = math.isqrt(part.queries) if part.grid_queries else None
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(part.queries, out_width), std=0.02))
        self.project = nn.Identity() if in_width == out_width else nn.Linear(in_width, out_width, bias=False)
        self.queries_norm, self.context_norm, self.norm = (nn.LayerNorm(out_width, eps=EPS) for _ in range(3))
        self.query, self.key, self.value, self.output = (nn.Linear(out_width, out_width) for _ in range(4))
        self.last = nn.Linear(out_width, out_width, bias=False)

    def forward(self, features: Tensor, grid: Grid | None = None) -> Tensor:
        """Resample the patches of tiles with this grid: (P, N, C) -> (P, Q, D). A grid of None is that of `build`."""
        context = self.context_norm(self.project(features))  # (P, N, D)
        of_queries, of_patches = self._positions(grid or self.grid, context)
        queries = (self.queries_norm(self.queries.to(context.dtype)) + of_queries).expand(len(context), -1, -1)
        read = attend(self.query(queries), self.key(context + of_patches), self.value(context), self.head_width)
        return self.last(self.norm(self.output(read)))

    def _positions(self, grid: Grid, like: Tensor) -> tuple[Tensor | float, Tensor]:
        """Return the positions of the queries, (Q, D) or 0.0, and those of the patches, (N, D)."""
        width, device = like.shape[-1], like.device
        if self.side is None:
            return 0.0, sine_positions(grid.rows, grid.columns, width, device).to(like.dtype)
        positions = sine_positions(self.side, self.side, width, device)
        return positions.to(like.dtype), stretched(positions, self.side, grid).to(like.dtype)


@dataclass(frozen=True)
class QueryResampler:
    """Qwen-VL's resampler, with Qwen-VL's defaults, or MiniCPM-V's.

    Qwen-VL: the queries form a square grid with positions, and the patches get these positions, interpolated to their own grid.
    MiniCPM-V 2.5 and 2.6 (`grid_queries: false`): the queries have no positions, and a patch has that of its row and column.
    A tower that returns patches square by square, such as `qwen2_vl`, does not fit.
    """

    queries: int = 256  # Qwen-VL; MiniCPM-V 2.5: 96, 2.6: 64 (these two not checked at their source)
    head_width: int = 128  # Qwen-VL and MiniCPM-V
    grid_queries: bool = True

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"queries must be 1 or more, not {self.queries}")
        if self.grid_queries and math.isqrt(self.queries) ** 2 != self.queries:
            raise ValueError(f"queries must be a square number if `grid_queries` is true, but is {self.queries}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns, with one extra token per query."""
        return Grid(0, 0, extra=self.queries)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts tiles of any grid.

        Raises ValueError for a grid with a class token, or if `head_width` or 4 does not divide the output width.
        """
        if grid.extra:
            raise ValueError("query_resampler cannot use a class token, because it has no position in the grid of patches")
        if out_width % self.head_width or out_width % 4:
            raise ValueError(
                f"the language model's width, {out_width}, must be divisible by 4 and by head_width, {self.head_width}"
            )
        return QueryAttention(facts.width, out_width, grid, self)
