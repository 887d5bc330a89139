"""Cross-entropy on answer tokens only, in chunks: the logits of all tokens never exist at once.

B batch, T tokens, D width, V vocabulary, N tokens with a loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100


def answer_positions(labels: Tensor, segment_ids: Tensor) -> Tensor:
    """Say which positions predict a label: (B, T), (B, T) -> bool (B, T).

    Position t predicts label t + 1, and only inside its own segment: the last token of a packed sample says nothing
    about the first of the next one.
    """
    predicts = torch.zeros_like(labels, dtype=torch.bool)
    predicts[:, :-1] = (labels[:, 1:] != IGNORE) & (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
    return predicts


def answer_labels(labels: Tensor, predicts: Tensor) -> Tensor:
    """Return the label that each predicting position should give: (N,), in the order of `hidden[predicts]`."""
    return labels.roll(-1, dims=1)[predicts]


def token_losses(hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy and each token's share: (N, D), (V, D), (N,) -> scalar, (N,) without gradient.

    `chunk` tokens' logits live at a time, in fp32: chunk * V * 4 bytes. The gradients are made in the forward pass,
    chunk by chunk, so the logits are not computed twice.
    """
    total, each = _ChunkedCrossEntropy.apply(hidden, weight, labels, chunk)
    return total, each


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # The sum over chunks is kept in fp32: adding many small bf16 products would round them away.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part] @ weight.T).float()  # (n, V)
            losses[part] = F.cross_entropy(logits, labels[part], reduction="none")
            if not (wants_hidden or wants_weight):
                continue
            gradient = logits.softmax(-1)
            gradient[torch.arange(len(gradient), device=gradient.device), labels[part]] -= 1
            gradient = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = gradient @ weight
            if grad_weight is not None:
                grad_weight += gradient.T @ hidden[part]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        scale = gradients[0]
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * scale).to(ctx.weight_dtype),
            None,
            None,
        )
