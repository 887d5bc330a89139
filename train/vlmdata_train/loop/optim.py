"""The optimizer: parameter groups, AdamW, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from vlmdata_train.loop.adamw import SplitAdamW, local
from vlmdata_train.model.model_recipe import Part
from vlmdata_train.recipe import Optimizer


def parameter_groups(
    parts: Mapping[str, nn.Module], table: Mapping[str, Part], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups. Each part has two: trained matrices with weight decay, and trained vectors without it.

    A weight that two parts share, such as tied embeddings, belongs to the first of the two.
    """
    groups = []
    taken: set[int] = set()
    for name, module in parts.items():
        part = table.get(name, Part())
        rate = lr if part.lr is None else part.lr
        decay = weight_decay if part.weight_decay is None else part.weight_decay
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in own}
        for params, wd in (([p for p in own if p.ndim > 1], decay), ([p for p in own if p.ndim <= 1], 0.0)):
            if params:
                groups.append({"params": params, "lr": rate, "initial_lr": rate, "weight_decay": wd, "part": name})
    return groups


def make_optimizer(groups: list[dict[str, Any]], choice: Optimizer) -> TorchOptimizer:
    """Return AdamW: torch's for fp32 weights, SplitAdamW for bf16 weights."""
    kinds = {p.dtype for group in groups for p in group["params"]}
    betas = (choice.beta1, choice.beta2)
    if kinds == {torch.bfloat16}:
        first = torch.bfloat16 if choice.compact else torch.float32
        return SplitAdamW(groups, betas=betas, eps=choice.eps, first=first)
    assert kinds == {torch.float32}, f"trained weights must be all bf16 or all fp32, not {kinds}"
    return torch.optim.AdamW(groups, betas=betas, eps=choice.eps, fused=True)


def optimizer_bytes(weights: list[nn.Parameter], compact: bool) -> float:
    """Return the bytes of AdamW's state on this rank.

    The state holds two moments of each weight. For a bf16 weight, it also holds the lower half of the weight's fp32 value. With
    `compact`, the first moment of a bf16 weight is bf16.
    """
    return sum(local(p).numel() * (8 if p.dtype == torch.float32 or compact else 10) for p in weights)


def schedule_factor(kind: str, progress: float, warmup: float) -> float:
    """Return the factor of the learning rates, in [0, 1]. `progress` is the share of the run that is done, in [0, 1].

    The factor rises linearly to 1 until `progress` reaches `warmup`. Then it stays 1 (`constant`), falls linearly to 0
    (`linear`), or falls to 0 as half a cosine (`cosine`).
    """
    if progress < warmup:
        return progress / warmup
    if kind == "constant":
        return 1.0
    left = (1.0 - min(progress, 1.0)) / (1.0 - warmup) if warmup < 1 else 0.0
    return left if kind == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))


def set_learning_rates(optimizer: TorchOptimizer, factor: float) -> dict[str, float]:
    """Set each group's learning rate to its initial rate times `factor`, and return the learning rate of each part."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return {group["part"]: group["lr"] for group in optimizer.param_groups}
