"""Finds the GPUs of this machine without CUDA, so that the driver can assign them to workers without importing torch."""

from __future__ import annotations

import os

from vlmdata.models.find_gpus import gpus_here
from vlmdata.recipe import Recipe


def wants_gpu(recipe: Recipe) -> bool:
    """Return whether a step of the recipe would use a GPU."""
    return any("gpu" in step.needed() for step in recipe.steps)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [word for word in (one.strip() for one in visible.split(",")) if word and word != "-1"]
    return [str(number) for number in range(gpus_here())]
