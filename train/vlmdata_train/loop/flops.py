"""Floating-point operations: the cost of a token in each part of a model, and the peak of a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import nn

from vlmdata_train.fusions.cross_attention import CrossLayer


def flops_per_token(parts: Mapping[str, nn.Module], trained: Mapping[str, bool]) -> dict[str, float]:
    """Return each part's model FLOPs for one token that passes it, forward and backward, without recomputation.

    Each weight costs 2 in the forward pass, 2 for the gradient of the input (if its part or an earlier one is trained), and 2
    for its own gradient (if it is trained). So a language model of N weights costs 6 N a token when it is trained, 4 N when
    only the projector is, and with LoRA 4 N plus 6 for each LoRA weight. Source: Kaplan et al. 2020. The products of attention
    are not counted, and an embedding table counts like any weight.

    `meter.add_step` defines which tokens pass a part. Cross-attention computes keys and values from image features, not from
    text: their weights have an entry of their own, `fusion_features`, if there are any.
    """
    learns = {
        name: trained.get(name, False) and any(p.requires_grad for p in part.parameters()) for name, part in parts.items()
    }
    layers = [layer for layer in parts["fusion"].modules() if isinstance(layer, CrossLayer)]
    of_features = {id(p) for layer in layers for p in layer.feature_weights()}
    costs = {}
    for name, before in PARTS_UP_TO.items():
        part = name.removesuffix("_features")
        weights = [p for p in parts[part].parameters() if (id(p) in of_features) == (name != part)]
        if name in parts or weights:
            costs[name] = _flops(weights, any(learns[other] for other in before), learns[part])
    return costs


# Each part with those before it. The fusion's layers are among those of the language model, so that the gradient of a trained
# language model passes them.
PARTS_UP_TO = {
    "encoder": ("encoder",), "abstractor": ("encoder", "abstractor"), "fusion_features": ("encoder", "abstractor", "fusion"),
    "fusion": ("encoder", "abstractor", "fusion", "language"), "language": ("encoder", "abstractor", "fusion", "language"),
}  # fmt: skip


def _flops(weights: list[nn.Parameter], passes_back: bool, learns: bool) -> float:
    """Return the FLOPs of these weights for one token."""
    return sum(p.numel() * (2.0 + 2.0 * passes_back + 2.0 * (learns and p.requires_grad)) for p in weights)


def matrix_peak(device: torch.device) -> float | None:
    """Measure the peak FLOP/s of this GPU with a bf16 matrix product of size 8192. Returns None on a CPU."""
    if device.type != "cuda":
        return None
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize(device)
    return 20 * 2 * 8192**3 / (time.perf_counter() - start)
