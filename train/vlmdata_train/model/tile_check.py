"""Check, before any weight is loaded, that the abstractor of a recipe accepts the tiles that its preprocessing makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmdata_train.model.encode_images import joins_patches
from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.surroundings import Surroundings, TextFacts, build_abstractor

# heights and widths of images that are not square, so that tiles of an image's own shape have grids of even and odd numbers
PHOTOS = ((480, 640), (427, 613))


def check_tiles(plan: ImagePlan, out_width: int, text: TextFacts, arrangement: Any = None) -> None:
    """Run the abstractor for the tiles of two photos, on the meta device. Raises ValueError if it does not accept them.

    Some abstractors are built for one grid of patches, but some preprocessings make tiles of any size. `arrangement` is the
    preprocessing's module, which may join tiles before the abstractor. Also raises ValueError if a video part does not fit
    the other parts.
    """
    if plan.video is not None:
        _check_video(plan)
    facts, abstractor = plan.facts, plan.abstractor
    with torch.device("meta"), torch.no_grad():
        side = facts.image_size
        module = build_abstractor(abstractor, plan.patch_facts, out_width, facts.grid(side, side), text)
        if joins_patches(arrangement) and getattr(module, "reads_surroundings", False):
            raise ValueError(
                f"abstractor: {type(abstractor).__name__} reads tiles one by one, but the preprocessing "
                f"{type(plan.preprocessing).__name__} joins the patches of an image's tiles. Use another abstractor"
            )
        for photo, grid in ((size, grid) for size in PHOTOS for grid in _grids(plan, size, arrangement)):
            try:
                made = _run(module, torch.empty(1, grid.tokens, plan.patch_facts.width), grid, text)
                if made != abstractor.grid_of(grid).tokens:
                    raise ValueError(f"it makes {made} tokens")
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"abstractor: {type(abstractor).__name__} does not accept {grid.rows} x {grid.columns} patches, which the "
                    f"preprocessing {type(plan.preprocessing).__name__} makes from an image of {photo[1]} x {photo[0]} px. Use "
                    "an abstractor for any number of patches, such as mlp, perceiver or gated_resampler"
                ) from error


def _grids(plan: ImagePlan, photo: tuple[int, int], arrangement: Any) -> list[Grid]:
    """Return the different grids of patches that the abstractor gets for a photo of this (height, width)."""
    tiles = plan.preprocessing.prepare(np.zeros((*photo, 3), np.uint8), plan.facts)[:: plan.copies]
    grids = [plan.facts.grid(*tile.shape[1:]) for tile in tiles]
    if joins_patches(arrangement):
        patches = torch.empty(len(tiles), grids[0].tokens, plan.facts.width)
        grids = [grid for _, grid in arrangement(patches, width=photo[1], height=photo[0])]
    return sorted(set(grids), key=lambda grid: (grid.rows, grid.columns))


def _check_video(plan: ImagePlan) -> None:
    """Raise ValueError if the video part does not fit the other parts."""
    joins = [bool(getattr(part, "joins_frames", False)) for part in (plan.video, plan.abstractor)]
    if joins == [True, False]:
        raise ValueError(
            f"video: {type(plan.video).__name__} needs an abstractor that reads the frames of a video together, such as"
            " `perceiver: {frames: 8}`"
        )
    if joins == [False, True]:
        raise ValueError(
            f"video: {type(plan.abstractor).__name__} reads the frames of a video together. Use the video part `joined_frames`"
        )
    plan.video.regions([0.0, 1.0], PHOTOS[0][1], PHOTOS[0][0], plan)


def _run(module: Any, patches: Tensor, grid: Grid, text: TextFacts) -> int:
    """Return how many tokens an abstractor's module makes from one tile, (1, N, C)."""
    if getattr(module, "reads_surroundings", False):
        alone = Surroundings.of_one_tile(patches.device, lambda ids: torch.empty(*ids.shape, text.width))
        return len(module([patches[0]], alone)[0])
    return module(patches, **({"grid": grid} if getattr(module, "takes_grid", False) else {})).shape[1]
