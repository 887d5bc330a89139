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
from vlmdata_train.model.weight_rules import ruled_weights
from vlmdata_train.recipe import Optimizer


def parameter_groups(
    parts: Mapping[str, nn.Module], table: Mapping[str, Part], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups. Each part has one for each of its learning rates and weight decays.

    Only matrices have weight decay. The `label` of a group is its part, or `part/rule` if a rule sets its learning rate. A
    weight that two parts share, such as tied embeddings, belongs to the first of the two.
    """
    groups = []
    taken: set[int] = set()
    for name, module in parts.items():
        part = table.get(name, Part())
        own = [one for one in ruled_weights(module, part.rules) if one.weight.requires_grad and id(one.weight) not in taken]
        taken |= {id(one.weight) for one in own}
        alike: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        for one in sorted(own, key=lambda one: one.weight.ndim <= 1):  # matrices first
            rate = _first(one.lr, part.lr, lr)
            decay = _first(one.weight_decay, part.weight_decay, weight_decay) if one.weight.ndim > 1 else 0.0
            label = f"{name}/{one.lr_rule.label}" if one.lr_rule else name
            alike.setdefault((label, rate, decay), []).append(one.weight)
        for (label, rate, decay), weights in alike.items():
            groups.append({"params": weights, "lr": rate, "initial_lr": rate, "weight_decay": decay, "label": label})
    return groups


def _first(*values: float | None) -> float:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)


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
    """Set each group's learning rate to its initial rate times `factor`, and return the rates by the labels of the groups."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return {group["label"]: group["lr"] for group in optimizer.param_groups}
