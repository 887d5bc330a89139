"""A program that a test runs on two ranks with torchrun: the first rank has images, and the second has none.

torchrun --nproc-per-node 2 -m tests.train.images_on_one_rank fsdp OUT.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tests.train.tiny import TINY, pack, sample, tiny_model
from vlmdata_train.distributed import Ranks, distribute, full_tensor, joined
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.repeated_blocks import blocks_of, recompute

FUSIONS: dict[str, Any] = {
    "experts": "visual_experts",
    "experts of feed-forward layers": {"visual_experts": {"layers": "feed_forward", "shared_last": 1}},
    "depths": {"mixture_of_depths": {"first": 0}},
}


def micro_of(model: VisionLanguageModel, rank: int, ranks: Ranks) -> MicroBatch:
    """Return the batch of a rank: two samples with three images, or two samples without images."""
    samples = [sample(model, 20, 1 - rank, 1), sample(model, 15, 2 * (1 - rank), 2)]
    return MicroBatch.of(pack(model, samples), ranks.device)


def gradients(model: VisionLanguageModel) -> dict[str, Tensor]:
    """Return the gradients of all weights, gathered from all ranks."""
    named = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, gradient in named.items() if gradient is None] == []
    return {name: full_tensor(gradient).clone() for name, gradient in named.items() if gradient is not None}


def difference(fusion: Any, how: Literal["ddp", "fsdp"], ranks: Ranks) -> tuple[int, float]:
    """Return the number of weights, and the largest difference from the mean gradients of one rank."""
    alone, model = (tiny_model(replace(TINY, fusion=fusion)).train() for _ in range(2))
    for rank in range(2):
        ModelWithLoss(alone, chunk=64, autocast=False)(micro_of(alone, rank, ranks))[0].backward()
    blocks = blocks_of(model.language)
    recompute(blocks, [True, False])
    module = distribute(ModelWithLoss(model, chunk=64, autocast=False), blocks, ranks, how)
    module(micro_of(model, ranks.rank, ranks))[0].backward()
    wanted, found = gradients(alone), gradients(model)
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    return len(found), max(float((found[name] - wanted[name] / 2).abs().max()) for name in wanted) / scale


def main(how: Literal["ddp", "fsdp"], out: Path) -> None:
    """Write the differences of all fusions."""
    with joined("cpu") as ranks:
        found = {name: difference(fusion, how, ranks) for name, fusion in FUSIONS.items()}
        if ranks.is_first:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))  # type: ignore[arg-type]
