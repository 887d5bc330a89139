"""Activation checkpointing by measured memory: recompute as few blocks as the GPU's memory allows."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.model.repeated_blocks import recompute


class Memory(Protocol):
    """The memory of a device, in bytes, as `fit_memory` measures it."""

    def limit(self) -> float:
        """Return the memory that training may use."""
        ...

    def held(self) -> float:
        """Return the memory that all tensors take now."""
        ...

    def begin_peak(self) -> None:
        """Start a new measurement of the peak."""
        ...

    def peak(self) -> float:
        """Return the highest memory of tensors since `begin_peak`."""
        ...


class CudaMemory:
    """Memory of a GPU, as torch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def limit(self) -> float:
        """Return 90% of the GPU's memory. The rest stays free for fragmentation."""
        return 0.9 * torch.cuda.get_device_properties(self.device).total_memory

    def held(self) -> float:
        """Return the memory that all tensors take now."""
        torch.cuda.synchronize(self.device)
        return torch.cuda.memory_allocated(self.device)

    def begin_peak(self) -> None:
        """Start a new measurement of the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float:
        """Return the highest memory of tensors since `begin_peak`."""
        return torch.cuda.max_memory_allocated(self.device)


def spaced(count: int, chosen: int) -> list[bool]:
    """Return for each of `count` blocks whether it is chosen. The `chosen` blocks are evenly spaced."""
    return [(i + 1) * chosen // count > i * chosen // count for i in range(count)]


def blocks_to_recompute(blocks: int, bytes_per_block: float, free_bytes: float) -> int:
    """Return how many blocks must be recomputed so that the activations of the others fit into `free_bytes`."""
    fit = blocks if bytes_per_block <= 0 else int(free_bytes // bytes_per_block)
    return max(0, blocks - max(0, fit))


def fit_memory(blocks: list[nn.Module], run: nn.Module, micro: Any, later_bytes: float, memory: Memory, ranks: Ranks) -> int:
    """Choose as few blocks to recompute as the memory allows, and return their number. Every rank must call this function.

    The memory of a forward and backward pass is measured twice: with all blocks recomputed, and with all except the first.
    `run` is the distributed module. `later_bytes` is the size of the optimizer's state, which is not allocated yet. The rank
    with the least free memory decides for all ranks, because under FSDP they run the forward pass of a block together.
    """
    held = []
    for kept in (0, 1):
        recompute(blocks, [i >= kept for i in range(len(blocks))])
        memory.begin_peak()
        before = memory.held()
        total, _ = run(micro)
        held.append(memory.held() - before)
        total.backward()
        run.zero_grad(set_to_none=False)  # keep the gradients allocated: they are part of the peak
        del total
    free = memory.limit() - memory.peak() - later_bytes
    recomputed = max(all_gather_objects(blocks_to_recompute(len(blocks), held[1] - held[0], free), ranks))
    recompute(blocks, spaced(len(blocks), recomputed))
    run.zero_grad(set_to_none=True)
    return recomputed
