"""Says why a tensor of a file cannot be a weight of the model."""

from __future__ import annotations

import torch
from torch import Tensor

TRAINED = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def misfit(tensor: Tensor, weight: Tensor) -> str | None:
    """Return a predicate that says why a tensor cannot be a weight, or None if it can. It does not end in a full stop.

    Smaller types, such as float8, are quantized: the numbers are weights only with scales, which are other tensors.
    """
    if weight.is_floating_point() and tensor.dtype not in TRAINED:
        known = ", ".join(_name(dtype) for dtype in TRAINED)
        return f"has the type {_name(tensor.dtype)}, but only {known} can be trained. Start from weights without quantization"
    if weight.shape != tensor.shape:
        return f"has the shape {tuple(tensor.shape)}, but the model needs {tuple(weight.shape)}"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
