"""Activation checkpointing chosen by memory: a step is measured, and as few blocks are recomputed as fit."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.model.repeated_blocks import recompute


class Memory(Protocol):
    """What fit_memory asks of a device, in bytes."""

    def limit(self) -> float: ...
    def held(self) -> float: ...
    def begin_peak(self) -> None: ...
    def peak(self) -> float: ...


class CudaMemory:
    """A GPU's, as torch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def limit(self) -> float:
        """Return all that the GPU has but a tenth, which stays free for fragments."""
        return 0.9 * torch.cuda.get_device_properties(self.device).total_memory

    def held(self) -> float:
        """Return what tensors take now."""
        torch.cuda.synchronize(self.device)
        return torch.cuda.memory_allocated(self.device)

    def begin_peak(self) -> None:
        """Forget the peak before."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float:
        """Return the most that was held since then."""
        return torch.cuda.max_memory_allocated(self.device)


def spaced(count: int, chosen: int) -> list[bool]:
    """Choose `chosen` of `count` blocks at even distances."""
    return [(i + 1) * chosen // count > i * chosen // count for i in range(count)]


def blocks_to_recompute(blocks: int, bytes_per_block: float, free_bytes: float) -> int:
    """Return how many blocks must be recomputed so that the activations of the others fit into `free_bytes`."""
    fit = blocks if bytes_per_block <= 0 else int(free_bytes // bytes_per_block)
    return max(0, blocks - max(0, fit))


def fit_memory(blocks: list[nn.Module], run: nn.Module, micro: Any, later_bytes: float, memory: Memory, ranks: Ranks) -> int:
    """Measure a step with all blocks recomputed and with one kept, and recompute as few as fit. Returns how many.

    `run` is the module as it is distributed over the ranks, `later_bytes` what is not yet taken: the optimizer's state. Every
    rank must call it; the one with the least room decides for all, for under FSDP all ranks run a block's forward together.
    """
    held = []
    for kept in (0, 1):
        recompute(blocks, [i >= kept for i in range(len(blocks))])
        memory.begin_peak()
        before = memory.held()
        total, _ = run(micro)
        held.append(memory.held() - before)
        total.backward()
        run.zero_grad(set_to_none=False)  # the gradients stay: they are part of the peak
        del total
    free = memory.limit() - memory.peak() - later_bytes
    again = max(all_gather_objects(blocks_to_recompute(len(blocks), held[1] - held[0], free), ranks))
    recompute(blocks, spaced(len(blocks), again))
    run.zero_grad(set_to_none=True)
    return again
