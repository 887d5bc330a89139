"""Floating-point operations: what a token costs each part of a model, and what a GPU can give."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import nn

from vlmdata_train.fusions.cross_attention import CrossLayer


def flops_per_token(parts: Mapping[str, nn.Module], trained: Mapping[str, bool]) -> dict[str, float]:
    """Return each part's model FLOPs for one token that passes it, forward and backward, without recomputation.

    2 per weight forward, 2 for the gradient of what came in (if anything before it, or in its part, is trained), 2 for the
    weight's own gradient, if it is trained itself. So a language model costs 6 N a token when trained, 4 N when only the
    projector is, and 4 N and 6 for each weight of the updates with LoRA (Kaplan et al. 2020 count so; attention's own
    products are left out, and a table of embeddings counts like any weight).

    `meter.add_step` says what passes a part. Keys and values of cross-attention are made of image features and not of text:
    where there are any, they have their own entry, `fusion_features`.
    """
    learns = {
        name: trained.get(name, False) and any(p.requires_grad for p in part.parameters()) for name, part in parts.items()
    }
    layers = [layer for layer in parts["fusion"].modules() if isinstance(layer, CrossLayer)]
    of_features = {id(p) for layer in layers for p in layer.feature_weights()}
    costs = {}
    for name, through in UP_TO.items():
        part = name.removesuffix("_features")
        weights = [p for p in parts[part].parameters() if (id(p) in of_features) == (name != part)]
        if name in parts or weights:
            costs[name] = _flops(weights, any(learns[other] for other in through), learns[part])
    return costs


# The parts before the end of each one. The fusion's layers stand among those of the language model, so that a gradient on its
# way to a trained language model passes them.
UP_TO = {
    "encoder": ("encoder",), "abstractor": ("encoder", "abstractor"), "fusion_features": ("encoder", "abstractor", "fusion"),
    "fusion": ("encoder", "abstractor", "fusion", "language"), "language": ("encoder", "abstractor", "fusion", "language"),
}  # fmt: skip


def _flops(weights: list[nn.Parameter], passes_back: bool, learns: bool) -> float:
    """Return the FLOPs that weights cost a token."""
    return sum(p.numel() * (2.0 + 2.0 * passes_back + 2.0 * (learns and p.requires_grad)) for p in weights)


def matrix_peak(device: torch.device) -> float | None:
    """Measure the FLOP/s of a bare bf16 matrix product of 8192: what this GPU can give. None on a CPU."""
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
