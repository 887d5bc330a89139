"""The repeated blocks of a model, which are compiled, recomputed and sharded one by one."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the largest list of modules of one class inside a module, or [] if there is none.

    These are the layers of a language model or a tower.
    """
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) > 1 and len({type(b) for b in m}) == 1]
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=[]))


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compile each block in place. Freeze weights before this; see `freezing.apply_parts`."""
    for block in blocks:
        block.compile()


def recompute(blocks: list[nn.Module], which: list[bool]) -> None:
    """Set for each block whether it recomputes its activations in the backward pass (true) or keeps them (false).

    Raises ValueError for a block that does not support recomputation.
    """
    for block, is_recomputed in zip(blocks, which, strict=True):
        if not hasattr(block, "gradient_checkpointing"):
            raise ValueError(f"speed.recompute: {type(block).__name__} does not support recomputation. Choose `none`.")
        block.gradient_checkpointing = is_recomputed  # type: ignore[assignment]
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
