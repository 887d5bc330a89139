"""Cross-entropy on answer tokens only. It is computed in chunks, so that the logits of all tokens never exist at once.

B batch, T tokens, D width, V vocabulary, N tokens with a loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.head import Head


def answer_positions(labels: Tensor, segment_ids: Tensor) -> Tensor:
    """Return which positions predict a label: (B, T), (B, T) -> bool (B, T).

    Position t predicts label t + 1 if both are in the same segment. So the last token of a packed sample does not predict the
    first token of the next sample.
    """
    predicts = torch.zeros_like(labels, dtype=torch.bool)
    predicts[:, :-1] = (labels[:, 1:] != IGNORE) & (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
    return predicts


def answer_labels(labels: Tensor, predicts: Tensor) -> Tensor:
    """Return the label that each True position in `predicts` predicts, row by row: (B, T), (B, T) -> (N,)."""
    return labels.roll(-1, dims=1)[predicts]


def token_losses(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None, head: Head | None = None, chunk: int = 2048
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy, and each token's share of it, (N,), which has no gradient.

    `hidden` is (N, D), `labels` is (N,). `weight` (V, D) and `bias` (V,) belong to the output layer, and `head` scales and caps
    its logits. Only the fp32 logits of `chunk` tokens are in memory at once, which take `chunk * V * 4` bytes. The forward pass
    also computes the gradients, chunk by chunk, so the logits are computed only once.
    """
    total, each = _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, head or Head(), chunk)
    return total, each


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the cross-entropy and its gradients chunk by chunk, both in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, head: Head, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # Sum over chunks in fp32: a bf16 sum would round small terms away.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wants_bias else None
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part] @ weight.T).float()  # (n, V)
            if bias is not None:
                logits += bias
            logits = head.finish(logits)
            losses[part] = F.cross_entropy(logits, labels[part], reduction="none")
            if grad_hidden is None and grad_weight is None and grad_bias is None:
                continue
            gradient = _logit_gradient(logits, labels[part], head)
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
            gradient = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = gradient @ weight
            if grad_weight is not None:
                grad_weight += gradient.T @ hidden[part]
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        scaled: list[Tensor | None] = [
            None if gradient is None else (gradient * gradients[0].to(gradient.dtype)).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return scaled[0], scaled[1], scaled[2], None, None, None


def _logit_gradient(logits: Tensor, labels: Tensor, head: Head) -> Tensor:
    """Return the gradient of the summed cross-entropy with respect to the output layer's logits: (n, V), (n,) -> (n, V).

    `logits` are the logits after `head` has scaled and capped them.
    """
    gradient = logits.softmax(-1)
    gradient[torch.arange(len(gradient), device=gradient.device), labels] -= 1
    if head.cap is not None:
        gradient *= 1 - (logits / head.cap).square()  # the slope of cap * tanh(x / cap)
    return gradient if head.scale == 1.0 else gradient * head.scale
