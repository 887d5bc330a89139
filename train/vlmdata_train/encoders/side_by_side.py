"""Several towers whose features are concatenated for each patch: DINOv2 + SigLIP in Prismatic, SAM + SigLIP in DeepSeek-VL.

Sources: Karamcheti et al. 2024, Prismatic VLMs; Lu et al. 2024, DeepSeek-VL. P images, N patches, C the sum of the widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.parts import make_part


class Towers(nn.Module):
    """Maps normalised pixels to features (P, N, C). Each tower gets pixels in its size and normalisation."""

    def __init__(self, towers: Sequence[nn.Module], facts: Sequence[EncoderFacts]) -> None:
        super().__init__()
        self.towers, self.facts = nn.ModuleList(towers), tuple(facts)

    def forward(self, pixels: Tensor | list[Tensor]) -> Tensor:
        """Encode the pixels of each tower, or pixels (P, 3, H, W) that have the size and normalisation of the first tower."""
        if isinstance(pixels, Tensor):
            pixels = [self._for(facts, pixels) for facts in self.facts]
        return torch.cat([tower(own) for tower, own in zip(self.towers, pixels, strict=True)], -1)

    def _for(self, facts: EncoderFacts, pixels: Tensor) -> Tensor:
        """Return pixels of the first tower in the size and normalisation of another tower."""
        first = self.facts[0]
        if (facts.mean, facts.std) != (first.mean, first.std):
            own = pixels * _colours(first.std, pixels) + _colours(first.mean, pixels)  # in [0, 1]
            pixels = (own - _colours(facts.mean, pixels)) / _colours(facts.std, pixels)
        if facts.image_size != first.image_size:
            size = (facts.image_size, facts.image_size)
            pixels = functional.interpolate(pixels, size, mode="bicubic", antialias=True)
        return pixels


def _colours(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]


@dataclass(frozen=True)
class SideBySide:
    """Several towers with the same grid of patches. An entry of `towers` is written like the recipe's `encoder`.

    The preprocessing `resize_pad` makes a tile for each tower. With any other, each tower gets the first tower's tile in its
    size.
    """

    towers: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.towers) < 2:
            raise ValueError("side_by_side needs at least two towers")

    def facts(self) -> EncoderFacts:
        """Return the facts of the first tower, with the sum of all widths and the facts of each tower.

        Raise ValueError if the grids differ, or if a tower reads all tiles of an image at once.
        """
        all_facts = [make_part("encoder", entry).facts() for entry in self.towers]
        grids = [facts.grid(facts.image_size, facts.image_size) for facts in all_facts]
        if any(grid != grids[0] for grid in grids):
            raise ValueError(
                "side_by_side: all towers must have the same grid of patches, but these have grids of "
                f"{', '.join(f'{grid.rows} x {grid.columns}' for grid in grids)}"
            )
        if any(facts.tile_grids for facts in all_facts):
            raise ValueError("side_by_side: a tower that reads all tiles of an image at once must be the only tower")
        width = sum(facts.width for facts in all_facts)
        return replace(all_facts[0], width=width, levels=0, towers=tuple(all_facts))

    def build(self) -> nn.Module:
        """Return the towers with their weights."""
        parts = [make_part("encoder", entry) for entry in self.towers]
        return Towers([part.build() for part in parts], [part.facts() for part in parts])
