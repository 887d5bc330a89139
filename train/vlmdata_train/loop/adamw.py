"""AdamW for bf16 weights, as precise as with fp32 weights.

bf16 has 8 bits of precision. A step of 1e-5 on a weight of 0.02 therefore rounds to nothing, and a model trained in bf16 alone
stops learning. A bf16 number is the upper half of an fp32 number. The optimizer stores the lower 16 bits, so that both halves
together are the fp32 weight. The updates are the same as with fp32 weights, but need only 2 extra bytes for each weight instead
of 4. Source of the idea: Split-SGD-BF16, Kalamkar et al. 2020. The first moment may be bf16 because it is an average over about
ten steps. The second moment is an average over about a thousand steps, and would no longer change in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def join(high: Tensor, low: Tensor) -> Tensor:
    """Return the fp32 weight from its bf16 half and its int16 remainder."""
    bits = (high.view(torch.int16).to(torch.int32) << 16) + low.to(torch.int32)
    return bits.view(torch.float32)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return an fp32 weight rounded to bf16, and the int16 remainder: the difference of their fp32 bit patterns.

    A weight halfway between two bf16 numbers is rounded to the larger magnitude, so that the remainder is in [-32768, 32767].
    """
    bits = weight.view(torch.int32)
    low = (bits & 0xFFFF).to(torch.int16)  # 0x8000 and more wrap to negative numbers, which mean "rounded up"
    high = (bits - low.to(torch.int32)) >> 16
    return high.to(torch.int16).view(torch.bfloat16), low


class SplitAdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2019) on bf16 weights. `first` is the dtype of the first moment."""

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        first: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.first = first
        self._update: Any = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            numbers_of: dict[tuple[int, torch.device], Tensor] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"] = torch.zeros_like(p, dtype=self.first)
                    state["exp_avg_sq"] = torch.zeros_like(p, dtype=torch.float32)
                    state["low"] = torch.zeros_like(p, dtype=torch.int16)
                state["step"] += 1
                count = int(state["step"])
                # The numbers are a tensor, so that a new learning rate or step does not recompile the update.
                if (count, p.device) not in numbers_of:
                    numbers = [group["lr"], group["lr"] * group["weight_decay"], 1 - beta1**count, (1 - beta2**count) ** 0.5]
                    numbers_of[count, p.device] = torch.tensor(numbers, dtype=torch.float32).to(p.device)
                tensors = [local(t) for t in (p, p.grad, state["exp_avg"], state["exp_avg_sq"], state["low"])]
                self._updater(p.is_cuda)(*tensors, numbers_of[count, p.device], beta1, beta2, group["eps"])

    def _updater(self, compiled: bool) -> Any:
        """Return the function that updates one weight."""
        if self._update is None:
            self._update = torch.compile(_update, dynamic=True) if compiled else _update
        return self._update


def _update(
    high: Tensor, gradient: Tensor, first: Tensor, second: Tensor, low: Tensor,
    numbers: Tensor, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    """Update a weight and its moments in place. `high` and `low` are the two halves of the weight.

    `numbers` holds the learning rate, the learning rate times the weight decay, and the bias corrections of both moments.
    """
    lr, decay, correction1, correction2 = numbers.unbind()
    weight = join(high, low)
    g = gradient.float()
    m = first.float().lerp(g, 1 - beta1)
    v = second.float() * beta2 + g * g * (1 - beta2)
    weight = weight * (1 - decay) - lr / correction1 * m / (v.sqrt() / correction2 + eps)
    new_high, new_low = split(weight)
    high.copy_(new_high)
    low.copy_(new_low)
    first.copy_(m)
    second.copy_(v)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a tensor that FSDP shards, or any other tensor unchanged."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
