"""Copy a micro-batch, and the positions of its tokens that have a loss, to the device, and compute the loss.

B rows, T tokens, D width, N tokens with a loss, S samples.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdata_train.loop.loss import answer_labels, answer_positions, token_losses
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel


@dataclass(frozen=True)
class MicroBatch:
    """A batch with the positions that have a loss. The host computes these positions, so that the device never waits."""

    batch: Batch
    positions: Tensor  # (N,) indices of the tokens that predict an answer, in the flattened (B * T) tokens
    labels: Tensor  # (N,) token ids that these positions should predict
    sample_of: Tensor  # (N,) index of the sample of each position
    answers: list[int]  # number of tokens with a loss, for each sample
    tokens: int  # without padding
    padded_tokens: int  # B * T, with padding

    @staticmethod
    def of(batch: Batch, device: torch.device) -> MicroBatch:
        """Return the micro-batch of a batch, and start to copy its tensors to the device."""
        predicts = answer_positions(batch.labels, batch.segment_ids)
        labels = answer_labels(batch.labels, predicts)
        rows = torch.arange(len(batch.labels))[:, None].expand_as(batch.labels)
        is_packed = len(batch.labels) == 1
        sample_of = (batch.segment_ids.long() - 1 if is_packed else rows)[predicts]
        counts = torch.bincount(sample_of, minlength=len(batch.keys)).tolist()
        tokens, total = int((batch.segment_ids > 0).sum()), batch.labels.numel()
        positions = predicts.flatten().nonzero()[:, 0]
        positions, labels, sample_of = (_send(tensor, device) for tensor in (positions, labels, sample_of))
        return MicroBatch(to_device(batch, device), positions, labels, sample_of, counts, tokens, total)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on the device.

    The counts and sizes of images stay on the host, because only the host reads them.
    """
    if device.type == "cpu":
        return batch
    pixels = batch.pixels
    moved = _send(pixels, device) if isinstance(pixels, Tensor) else [_send(tile, device) for tile in pixels]
    return dataclasses.replace(
        batch,
        pixels=moved,
        input_ids=_send(batch.input_ids, device),
        labels=_send(batch.labels, device),
        position_ids=_send(batch.position_ids, device),
        segment_ids=_send(batch.segment_ids, device),
    )


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Start to copy a tensor to the device, and return the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class ModelWithLoss(nn.Module):
    """The model with its loss.

    Data parallelism wraps this module, so that the output layer is inside the wrapped forward pass.
    """

    def __init__(self, model: VisionLanguageModel, *, chunk: int, autocast: bool) -> None:
        super().__init__()
        self.model = model
        self.chunk = chunk
        self.autocast = autocast

    def forward(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and the part of this sum that each sample contributes: (S,). Only the sum has a gradient."""
        device = micro.positions.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            hidden = self.model(micro.batch)  # (B, T, D)
            layer = self.model.lm_head
            weight, answers = layer.weight, hidden.flatten(0, 1)[micro.positions]  # (V, D), (N, D)
            if self.autocast:
                weight, answers = weight.to(torch.bfloat16), answers.to(torch.bfloat16)
        total, each = token_losses(answers, weight, micro.labels, bias=layer.bias, head=self.model.head, chunk=self.chunk)
        of_sample = torch.zeros(len(micro.answers), device=device).index_add_(0, micro.sample_of, each)
        return total, of_sample
