"""Floating-point operations (FLOPs) that torch counts when a module runs on the meta device, where tensors have no values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")
# the operations that linear layers and convolutions become; attention is made of others (bmm, scaled_dot_product_attention)
COUNTED = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution, torch.ops.aten.convolution_backward)


def on_meta(module: nn.Module) -> Any:
    """Return a copy of a module on the meta device, which takes no memory."""
    weights = {id(weight): nn.Parameter(weight.to(META), weight.requires_grad) for weight in module.parameters()}
    buffers = {id(buffer): buffer.to(META) for buffer in module.buffers()}
    twin = copy.deepcopy(module, {**weights, **buffers})
    for layer in twin.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(_contiguous)
    return twin


def measure(run: Callable[[], Sequence[Tensor]]) -> int:
    """Return the FLOPs of the linear layers and convolutions of a function on the meta device, and of all needed gradients.

    These are the gradients of weights and inputs that require one, and those on the way to them. The products of attention,
    norms and biases are not counted.
    """
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        made = torch.stack([tensor.sum() for tensor in run()]).sum()
        if made.requires_grad:
            made.backward()
    found = counter.get_flop_counts().get("Global", {})
    return sum(flops for operation, flops in found.items() if operation in COUNTED)


def _contiguous(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a layer's input in its own memory. A frozen layer whose input is an expanded tensor would run as bmm."""
    return (args[0].contiguous(), *args[1:])
