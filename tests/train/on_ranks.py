"""A program that a test runs on several ranks with torchrun: all ranks recompute the blocks that the rank with the least memory
needs.

torchrun --nproc-per-node 2 -m tests.train.on_ranks ddp OUT.json     # writes the choice of each rank
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.train.tiny import LLAMA, TINY, pack, sample
from vlmdata_train.distributed import all_gather_objects, distribute, full_tensor, joined
from vlmdata_train.loop.memory import fit_memory
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.model import build_model
from vlmdata_train.model.repeated_blocks import blocks_of

BLOCKS = 6


class SavedTensors:
    """A counter of the bytes that the backward pass keeps. On a CPU, it stands in for the allocator of a GPU."""

    class Kept:
        """A saved tensor whose bytes count until it is freed."""

        def __init__(self, owner: SavedTensors, tensor: Tensor) -> None:
            self.owner, self.tensor = owner, tensor
            owner.count(tensor.nbytes)

        def __del__(self) -> None:
            self.owner.count(-self.tensor.nbytes)

    def __init__(self, limit: float) -> None:
        self._limit, self._held, self._peak = limit, 0.0, 0.0
        self._hooks = saved_tensors_hooks(lambda tensor: SavedTensors.Kept(self, tensor), lambda kept: kept.tensor)

    def count(self, more: float) -> None:
        """Add bytes to the current count."""
        self._held += more
        self._peak = max(self._peak, self._held)

    def limit(self) -> float:
        """Return the memory limit of the rank, in bytes."""
        return self._limit

    def held(self) -> float:
        """Return the bytes saved now."""
        return self._held

    def begin_peak(self) -> None:
        """Restart the measurement of the peak."""
        self._peak = self._held

    def peak(self) -> float:
        """Return the largest count since `begin_peak`."""
        return self._peak

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.__exit__(kind, error, trace)


def main(how: Literal["ddp", "fsdp"]) -> dict[str, Any]:
    """Choose blocks for three memory limits of the last rank, and compare the gradients with those of a model that keeps
    all."""
    with joined("cpu") as ranks:
        chosen = []
        gradients = []
        for room in (0.0, None, 1e12):  # bytes above the peak of full recomputation; None stands for two and a half blocks
            torch.manual_seed(0)
            config = {**LLAMA, "num_hidden_layers": BLOCKS}
            model = build_model(type(TINY)(encoder=TINY.encoder, language={"hf_causal": {"config": config}})).train()
            step = ModelWithLoss(model, chunk=64, autocast=False)
            layers = blocks_of(model.language)
            module = distribute(step, layers, ranks, how)
            micro = MicroBatch.of(pack(model, [sample(model, 40, 1, ranks.rank), sample(model, 30, 1, 7)]), ranks.device)
            with SavedTensors(0.0) as memory:
                # Measures only, to find out how much memory a block takes.
                fit_memory(layers, module, micro, 0.0, memory, ranks)
                one = (memory.peak(), block_bytes(layers, module, micro, memory))
            own = 1e12 if ranks.rank < ranks.world - 1 else one[0] + (2.5 * one[1] if room is None else room)
            with SavedTensors(own) as memory:
                again = fit_memory(layers, module, micro, 0.0, memory, ranks)
            chosen.append([again, sum(block.gradient_checkpointing for block in layers)])
            total, _ = module(micro)
            total.backward()
            gradients.append({name: full_tensor(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None})
        same = all(torch.allclose(g[name], gradients[-1][name], atol=1e-5) for g in gradients for name in gradients[-1])
        return {
            "chosen": all_gather_objects(chosen, ranks),
            "same": all_gather_objects(same, ranks),
            "weights": len(gradients[-1]),
        }


def block_bytes(layers: list[Any], module: Any, micro: MicroBatch, memory: SavedTensors) -> float:
    """Return the bytes that the backward pass keeps for one block."""
    held = []
    for kept in (0, 1):
        for number, block in enumerate(layers):
            block.gradient_checkpointing = number >= kept
        total, _ = module(micro)
        held.append(memory.held())
        total.backward()
        module.zero_grad(set_to_none=True)
        del total
    return held[1] - held[0]


if __name__ == "__main__":
    found = main(sys.argv[1])  # type: ignore[arg-type]
    if os.environ["RANK"] == "0":  # gathered gradients are the same on all ranks
        Path(sys.argv[2]).write_text(json.dumps(found))
