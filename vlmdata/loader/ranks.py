"""Finds the rank of this process in a distributed run. Does not import torch."""

import os
import sys

from vlmdata.errors import InputError


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return (rank, world size) from the arguments, from torch.distributed, or from torchrun's environment, in this order.

    Without any of these, return (0, 1). Raises ValueError if only one of the arguments is given, or if the rank is out of
    range.
    """
    if (rank is None) != (world_size is None):
        raise InputError("give both rank and world_size, or neither")
    if rank is None or world_size is None:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        else:
            rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise InputError(f"rank must be at least 0 and less than world_size ({world_size}), not {rank}")
    return rank, world_size
