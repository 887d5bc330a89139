"""How an image is written in a prompt: literal text, and runs of image tokens, which features replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata_train.model.encoder_facts import Region


@dataclass(frozen=True)
class Run:
    """A run of image tokens. Its features form a grid of frames, rows and columns, or no grid if these numbers are 0."""

    tokens: int
    frames: int = 0
    rows: int = 0
    columns: int = 0
    interval: float = 0.0  # seconds between the frames


Piece = str | Run


@dataclass(frozen=True)
class Place:
    """The place of an image in a text."""

    number: int  # images before this one in the sample
    before: str  # the text before the image
    after: str  # the text after the image, up to the next image
    several: bool = False  # the sample has more than one image


def run_of(regions: Sequence[Region]) -> Run:
    """Return the run of image tokens for the features of these regions. A single region without added features has a grid."""
    tokens = sum(region.tokens for region in regions)
    grid = regions[0].grid
    if len(regions) == 1 and tokens == grid.rows * grid.columns:
        return Run(tokens, 1, grid.rows, grid.columns)
    return Run(tokens)


def run_of_video(regions: Sequence[Region], seconds: Sequence[float]) -> Run:
    """Return the run of image tokens for the features of a video. Regions of one size, without added features, have a grid."""
    tokens, grid = sum(region.tokens for region in regions), regions[0].grid
    if {region.grid for region in regions} != {grid} or tokens != len(regions) * grid.rows * grid.columns:
        return Run(tokens)
    interval = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
    return Run(tokens, len(regions), grid.rows, grid.columns, interval)
