"""A program that a test runs on two ranks with torchrun: one rank has a batch of images, and the other a batch of videos.

torchrun --nproc-per-node 2 -m tests.train.on_ranks_videos OUT.json     # writes how the gradients differ from those of one rank
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tests.train.parity import noise_clip, of_media
from tests.train.test_joined_frames import IMAGE, JOINED
from tests.train.tiny import randomise
from vlmdata_train.distributed import distribute, joined
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.model import build_model
from vlmdata_train.model.repeated_blocks import blocks_of


def step_of() -> ModelWithLoss:
    """Return a model with the same random weights on all ranks."""
    model = build_model(JOINED).train()
    randomise(model)
    return ModelWithLoss(model, chunk=64, autocast=False)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of a model's weights by name."""
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def main() -> dict[str, Any]:
    """Compare the gradients of two ranks, which DDP averages, with those of one model for both batches."""
    with joined("cpu") as ranks:
        media = ([IMAGE], [noise_clip(3, 32, 32), noise_clip(2, 32, 32, seed=1)])
        step, alone = step_of(), step_of()
        module = distribute(step, blocks_of(step.model.language), ranks, "ddp")
        total, _ = module(MicroBatch.of(of_media(step.model, media[ranks.rank]), ranks.device))
        total.backward()
        for own in media:
            total, _ = alone(MicroBatch.of(of_media(alone.model, own), ranks.device))
            (total / ranks.world).backward()
        ours, theirs = gradients(step), gradients(alone)
        return {
            "without_gradient": [name for name, _ in step.named_parameters() if name not in ours],
            "largest": max(float(value.abs().max()) for value in theirs.values()),
            "largest_difference": max(float((ours[name] - theirs[name]).abs().max()) for name in theirs),
        }


if __name__ == "__main__":
    found = main()
    if os.environ["RANK"] == "0":
        Path(sys.argv[1]).write_text(json.dumps(found))
