"""The repeated blocks of a model: what is compiled, recomputed and sharded one by one."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the longest list of equal modules in a module: the layers of a language model or of a tower."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) > 1 and len({type(b) for b in m}) == 1]
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=[]))


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compile each block in place. Weights must be frozen and open as they will stay: see optim.apply_parts."""
    for block in blocks:
        block.compile()


def recompute(blocks: list[nn.Module], which: list[bool]) -> None:
    """Choose for each block whether the backward pass computes its activations again instead of keeping them."""
    for block, again in zip(blocks, which, strict=True):
        if not hasattr(block, "gradient_checkpointing"):
            raise ValueError(f"speed.recompute: {type(block).__name__} cannot be recomputed: choose `none`")
        block.gradient_checkpointing = again  # type: ignore[assignment]
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]


def spaced(count: int, chosen: int) -> list[bool]:
    """Choose `chosen` of `count` blocks at even distances."""
    return [(i + 1) * chosen // count > i * chosen // count for i in range(count)]


def blocks_to_recompute(blocks: int, bytes_per_block: float, free_bytes: float) -> int:
    """Return how many blocks must be recomputed so that the activations of the others fit into `free_bytes`."""
    fit = blocks if bytes_per_block <= 0 else int(free_bytes // bytes_per_block)
    return max(0, blocks - max(0, fit))


def fit_memory(blocks: list[nn.Module], run: torch.nn.Module, micro: object, later_bytes: float, device: torch.device) -> int:
    """Measure a step with all blocks recomputed and with one kept, and recompute as few as fit. Returns how many.

    `later_bytes` is what is not yet taken: the optimizer's state. A tenth of the memory stays free for fragments.
    """
    held = []
    for kept in (0, 1):
        recompute(blocks, [i >= kept for i in range(len(blocks))])
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        total, _ = run(micro)
        held.append(torch.cuda.memory_allocated(device) - before)
        total.backward()
        run.zero_grad(set_to_none=False)  # the gradients stay: they are part of the peak
        del total
    peak = torch.cuda.max_memory_allocated(device)
    limit = 0.9 * torch.cuda.get_device_properties(device).total_memory
    again = blocks_to_recompute(len(blocks), held[1] - held[0], limit - peak - later_bytes)
    recompute(blocks, spaced(len(blocks), again))
    run.zero_grad(set_to_none=True)
    return again
