"""Floating-point operations (FLOPs): what a token costs in each part of a model, and the peak rate of a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import nn


def flops_per_token(parts: Mapping[str, nn.Module], trained: Mapping[str, bool]) -> dict[str, float]:
    """Return the FLOPs of each part for one token that passes through it: forward and backward, without recomputation.

    Each weight costs 2 FLOPs in the forward pass. It costs 2 more for the gradient of its input if its part or an earlier part
    is trained, and 2 more for its own gradient if the weight itself is trained. So a language model of N weights costs 6 N for
    each token if it is trained, and 4 N if only the abstractor is trained. With LoRA it costs 4 N, plus 6 for each LoRA weight.
    The products of attention are not counted, and an embedding table counts like any weight. Source: Kaplan et al. 2020.

    `ModelFlops` counts the tokens that pass through each part. Some fusions have weights, or change layers of the language
    model, so that not all tokens pass through them. The module of such a fusion returns these weights from
    `weights_of_tokens`, by the kind of the tokens. They have entries of their own, named PART_KIND: `fusion_features` (keys and
    values of cross-attention, which are computed from image features), `fusion_images` and `language_text` (experts and the
    layers that they stand in for), and `language_chosen` (layers that some image tokens skip).
    """
    learns = {
        name: trained.get(name, False) and any(p.requires_grad for p in part.parameters()) for name, part in parts.items()
    }
    own: dict[str, list[nn.Parameter]] = getattr(parts["fusion"], "weights_of_tokens", dict)()
    kind_of = {id(weight): kind for kind, weights in own.items() for weight in weights}
    costs = {}
    for part, before in PARTS_UP_TO.items():
        of_kind: dict[str, list[nn.Parameter]] = {}
        for weight in parts[part].parameters():
            of_kind.setdefault(kind_of.get(id(weight), ""), []).append(weight)
        for kind in ("", *own):
            weights = of_kind.get(kind, [])
            if kind == "" or weights:
                passed = PARTS_UP_TO_FEATURES if kind == "features" else before
                costs[f"{part}_{kind}".rstrip("_")] = _flops(weights, any(learns[other] for other in passed), learns[part])
    return costs


# For each part, the part itself and the parts before it. The layers of the fusion are among the layers of the language model,
# so the gradient of a trained language model passes through them.
PARTS_UP_TO = {
    "encoder": ("encoder",), "abstractor": ("encoder", "abstractor"), "fusion": ("encoder", "abstractor", "fusion", "language"),
    "language": ("encoder", "abstractor", "fusion", "language"),
}  # fmt: skip
PARTS_UP_TO_FEATURES = ("encoder", "abstractor", "fusion")  # keys and values do not depend on the language model


def _flops(weights: list[nn.Parameter], passes_back: bool, learns: bool) -> float:
    """Return the FLOPs of these weights for one token."""
    return sum(p.numel() * (2.0 + 2.0 * passes_back + 2.0 * (learns and p.requires_grad)) for p in weights)


def matrix_peak(device: torch.device) -> float | None:
    """Return the peak FLOP/s of this GPU, or None on a CPU.

    The rate is measured by multiplying bf16 matrices of 8192 x 8192.
    """
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
