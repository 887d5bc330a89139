"""Find weights of a tower that its chosen features do not use.

These weights stay in the checkpoint but are not trained.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call


def unused_parameters(tower: nn.Module, height: int, width: int) -> list[str]:
    """Return the names of the parameters that get no gradient from the tower's output.

    The tower runs on the meta device.
    """
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

    Unused parameters are those of layers after the chosen layer, of a pooling head or of the last norm. They would count as
    trained but never get a gradient. A buffer keeps its place in the state dict, so the tower's saved weights have the same
    names.

    For LoRA, this also sets `is_called` of each linear layer. It is False if the tower does not call the layer, even if
    the tower uses the layer's weight.
    """
    linear = [module for module in tower.modules() if isinstance(module, nn.Linear)]
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: called.add(layer)) for layer in linear]
    names = unused_parameters(tower, height, width)
    for layer, hook in zip(linear, hooks, strict=True):
        hook.remove()
        layer.is_called = layer in called  # type: ignore[assignment]
    to_buffers(tower, names)
    return names


def to_buffers(module: nn.Module, names: Iterable[str]) -> None:
    """Turn the parameters with these names into buffers, which keep their place in the state dict and are never trained."""
    for name in names:
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        value = owner.get_parameter(leaf).detach()
        delattr(owner, leaf)
        owner.register_buffer(leaf, value)
