"""Which GPUs there are, without asking CUDA: the driver needs no torch to hand them out."""

from __future__ import annotations

import os

from vlmdata.models.find_gpus import gpus_here
from vlmdata.recipe import Recipe


def wants_gpu(recipe: Recipe) -> bool:
    """Say whether a step of the recipe uses a GPU where there is one."""
    return any("gpu" in step.needs for step in recipe.steps)


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine that this process may use, by the words that CUDA_VISIBLE_DEVICES has for them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [word for word in (one.strip() for one in given.split(",")) if word and word != "-1"]
    return [str(number) for number in range(gpus_here())]
