"""Flamingo's Perceiver resampler: a fixed number of learned latents attends to the patches in every layer.

The latents can also attend to the patches of all frames of a video, to which learned embeddings of time are added.
Source: Alayrac et al. 2022, Flamingo. The layers are built as in Idefics 1.

P tiles, N patches, F frames, L latents, C and D widths, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.model.surroundings import Surroundings


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


class Latents(nn.Module):
    """The network of `Perceiver`, whose latents attend to patches in every layer."""

    def __init__(self, width: int, out_width: int, part: Perceiver) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(part.latents, width))
        self.attentions = nn.ModuleList(
            [LatentAttention(width, part.heads, part.head_width, part.qk_norm) for _ in range(part.layers)]
        )
        self.mlps = nn.ModuleList([_mlp(width) for _ in range(part.layers)])
        self.norm = nn.LayerNorm(width)
        self.project = nn.Identity() if width == out_width else nn.Linear(width, out_width)

    def resample(self, features: Tensor) -> Tensor:
        """Run the layers, all of which attend to the same patches: (P, N, C) -> (P, L, D)."""
        latents = self.latents.to(features.dtype).expand(len(features), -1, -1)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            latents = latents + attention(features, latents)
            latents = latents + mlp(latents)
        return self.project(self.norm(latents))


class Resampler(Latents):
    """A resampler that reads each tile separately."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the latents of each tile: (P, N, C) -> (P, L, D)."""
        return self.resample(features)


class VideoResampler(Latents):
    """A resampler that reads all frames of a video together. Each tile of an image is read like a video of one frame."""

    reads_surroundings = True

    def __init__(self, width: int, out_width: int, part: Perceiver) -> None:
        super().__init__(width, out_width, part)
        self.time_embeddings = nn.Parameter(torch.randn(part.frames or 0, width))

    def forward(self, tiles: Sequence[Tensor], surroundings: Surroundings) -> list[Tensor]:
        """Return the latents of each image and video, from patches (N, C) of each tile: (L, D), or (n L, D) for n tiles."""
        sizes = [size for count, is_video in surroundings.images for size in ([count] if is_video else [1] * count)]
        contexts, start = [], 0
        for size in sizes:
            frames = zip(tiles[start : start + size], self.embeddings(size), strict=True)
            contexts.append(torch.cat([tile + time.to(tile.dtype) for tile, time in frames]))  # (F N, C)
            start += size
        latents = self._by_length(contexts)
        made, done = [], 0
        for count, is_video in surroundings.images:
            own = 1 if is_video else count
            made.append(torch.cat(latents[done : done + own]))
            done += own
        return made

    def embeddings(self, count: int) -> Tensor:
        """Return an embedding of time for each frame of a video, (count, C). They are interpolated for a longer video."""
        if count <= len(self.time_embeddings):
            return self.time_embeddings[:count]
        return functional.interpolate(self.time_embeddings.T[None], count, mode="linear", align_corners=True)[0].T

    def _by_length(self, contexts: Sequence[Tensor]) -> list[Tensor]:
        """Return the latents of each context. Contexts of one length are computed together."""
        found: dict[int, Tensor] = {}
        for length in sorted({len(context) for context in contexts}):
            numbers = [number for number, context in enumerate(contexts) if len(context) == length]
            latents = self.resample(torch.stack([contexts[number] for number in numbers]))
            found.update(zip(numbers, latents, strict=True))
        return [found[number] for number in range(len(contexts))]


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
    frames: int | None = None  # embeddings of time; Flamingo: 8 (not checked at its source). None: each frame is an image

    def __post_init__(self) -> None:
        check_range(self, "frames", least=1)

    @property
    def joins_frames(self) -> bool:
        """Whether the latents attend to all frames of a video together. Use the video part `joined_frames` then."""
        return self.frames is not None

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns. Its extra tokens are the latents."""
        return Grid(0, 0, extra=self.latents)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the resampler. It accepts any number of patches."""
        return (Resampler if self.frames is None else VideoResampler)(facts.width, out_width, self)
