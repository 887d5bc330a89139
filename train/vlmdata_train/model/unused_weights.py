"""Weights of a tower that its chosen features never touch: they stay in the checkpoint but are nobody's to train."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call


def unused_parameters(tower: nn.Module, height: int, width: int) -> list[str]:
    """Name the parameters that get no gradient from the tower's output, by a run on the meta device (no arithmetic)."""
    states: dict[str, Tensor] = {
        name: torch.empty_like(value, device="meta").requires_grad_(value.is_floating_point())
        for name, value in tower.named_parameters()
    }
    states |= {name: torch.empty_like(value, device="meta") for name, value in tower.named_buffers()}
    dtype = next(tower.parameters()).dtype
    pixels = torch.empty(1, 3, height, width, device="meta", dtype=dtype)
    with torch.enable_grad():
        functional_call(tower, states, (pixels,), strict=True).sum().backward()
    return [name for name, _ in tower.named_parameters() if states[name].grad is None]


def set_unused_aside(tower: nn.Module, height: int, width: int) -> list[str]:
    """Turn the unused parameters into buffers, and return their names.

    A layer after the chosen one, a pooling head or the last norm would otherwise be a weight that is said to be trained
    and never gets a gradient. As a buffer it keeps its place in the state dict, so a tower saves as it was loaded.
    A linear layer of which the tower takes the weight without calling it is marked, for LoRA: `is_called`.
    """
    linear = [module for module in tower.modules() if isinstance(module, nn.Linear)]
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: called.add(layer)) for layer in linear]
    names = unused_parameters(tower, height, width)
    for layer, hook in zip(linear, hooks, strict=True):
        hook.remove()
        layer.is_called = layer in called  # type: ignore[assignment]
    for name in names:
        owner_name, _, leaf = name.rpartition(".")
        owner = tower.get_submodule(owner_name)
        value = owner.get_parameter(leaf).detach()
        delattr(owner, leaf)
        owner.register_buffer(leaf, value)
    return names
