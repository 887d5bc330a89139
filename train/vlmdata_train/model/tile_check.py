"""Check, before any weight is loaded, that the abstractor of a recipe accepts the tiles that its preprocessing makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.surroundings import Surroundings

PHOTO = (480, 640)  # height and width of an image that is not square, so that tiles of the image's own shape are not either


def check_tiles(plan: ImagePlan, out_width: int) -> None:
    """Run the abstractor for the tiles of a photo, on the meta device. Raises ValueError if it does not accept them.

    Some abstractors are built for one grid of patches, but some preprocessings make tiles of any size. A video part raises
    ValueError if it does not fit the other parts.
    """
    if plan.video is not None:
        _check_video(plan)
    facts, abstractor = plan.facts, plan.abstractor
    sizes = sorted({tuple(tile.shape[1:]) for tile in plan.preprocessing.prepare(np.zeros((*PHOTO, 3), np.uint8), facts)})
    with torch.device("meta"), torch.no_grad():
        module = abstractor.build(facts, out_width, facts.grid(facts.image_size, facts.image_size))
        for height, width in sizes:
            grid = facts.grid(height, width)
            try:
                made = _run(module, torch.empty(1, grid.tokens, facts.width), grid)
                if made != abstractor.grid_of(grid).tokens:
                    raise ValueError(f"it makes {made} tokens")
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"abstractor: {type(abstractor).__name__} does not accept {grid.rows} x {grid.columns} patches, which the "
                    f"preprocessing {type(plan.preprocessing).__name__} makes from an image of {PHOTO[1]} x {PHOTO[0]} px. Use "
                    "an abstractor for any number of patches, such as mlp, perceiver or gated_resampler"
                ) from error


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
    plan.video.regions([0.0, 1.0], PHOTO[1], PHOTO[0], plan)


def _run(module: Any, patches: Tensor, grid: Grid) -> int:
    """Return how many tokens an abstractor's module makes from one tile, (1, N, C)."""
    if getattr(module, "reads_surroundings", False):
        width = patches.shape[-1]
        alone = Surroundings.of_one_tile(patches.device, lambda ids: torch.empty(*ids.shape, width))
        return len(module([patches[0]], alone)[0])
    return module(patches, **({"grid": grid} if getattr(module, "takes_grid", False) else {})).shape[1]
