"""The loss on held-out samples, with their own images or with grey images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from vlmdata_train.data.feed import Feed
from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.batch import IGNORE, Batch


@dataclass(frozen=True)
class HeldOutLoss:
    """Cross-entropy per answer token, overall and for each source (folder of tars)."""

    loss: float
    loss_of: dict[str, float]
    samples: int


@torch.no_grad()
def held_out_loss(
    model_with_loss: ModelWithLoss, feed: Feed, samples: int, ranks: Ranks, *, blank: bool = False,
    add: Callable[[int], None] = lambda _: None,
) -> HeldOutLoss:  # fmt: skip
    """Return the loss on the first `samples` samples of a feed. Their number is rounded up to whole batches.

    Every rank must call this function. Each rank evaluates its share. Every answer token has the same weight. `blank` makes
    every image grey. Under FSDP, a rank that finishes its share early runs empty batches until the other ranks finish. `add`
    receives the number of samples done on all ranks since its last call.
    """
    was_training = model_with_loss.training
    model_with_loss.eval()
    sums: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    seen = 0
    batches: Any = iter(feed)
    while True:
        batch, _ = next(batches, (None, None)) if seen * ranks.world < samples else (None, None)
        if not isinstance(model_with_loss, FSDPModule):
            is_over = batch is None
        else:
            is_over = not any(all_gather_objects(batch is not None, ranks))
        if is_over:
            break
        if batch is None:
            model_with_loss(MicroBatch.of(empty_batch(), ranks.device))
            continue
        micro = MicroBatch.of(blanked(batch) if blank else batch, ranks.device)
        _, of_sample = model_with_loss(micro)
        for source, loss, count in zip(batch.sources, of_sample.tolist(), micro.answers, strict=True):
            sums[source] += loss
            tokens[source] += count
        seen += len(batch.keys)
        add(len(batch.keys) * ranks.world)
    batches.close()
    model_with_loss.train(was_training)
    if isinstance(model_with_loss, FSDPModule):
        model_with_loss.reshard()  # FSDP does not reshard the root after a forward pass without a backward pass
    of_ranks = all_gather_objects([dict(sums), dict(tokens), seen], ranks)
    names = sorted({name for own in of_ranks for name in own[0]})
    loss = {name: sum(own[0].get(name, 0.0) for own in of_ranks) for name in names}
    counts = {name: sum(own[1].get(name, 0) for own in of_ranks) for name in names}
    losses = {name: loss[name] / max(counts[name], 1) for name in names}
    return HeldOutLoss(sum(loss.values()) / max(sum(counts.values()), 1), losses, sum(own[2] for own in of_ranks))


def blanked(batch: Batch) -> Batch:
    """Return the batch with every pixel grey (128), to measure what the model knows without the images."""
    pixels = batch.pixels
    grey: Any = [torch.full_like(p, 128) for p in pixels] if isinstance(pixels, list) else torch.full_like(pixels, 128)
    return dataclasses.replace(batch, pixels=grey)


def empty_batch() -> Batch:
    """Return a batch of one token that has no loss and no images."""
    one, none = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return Batch(
        input_ids=one, labels=torch.full_like(one, IGNORE), position_ids=one, segment_ids=torch.ones(1, 1, dtype=torch.int32),
        pixels=torch.zeros(0, 3, 1, 1), image_token_counts=none, grids=none.view(0, 3), intervals=torch.zeros(0),
        tile_counts=none, image_sizes=none.view(0, 2), of_sample=none, is_video=none.bool(), times=torch.zeros(0),
        questions=one[:, :0], sources=["-"], keys=["-"],
    )  # fmt: skip
