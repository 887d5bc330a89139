"""Ranks, communication and distribution of the model, for one process or many under torchrun."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from vlmdata.step import RecipeError

_GROUPS = itertools.count()  # the process groups that this process has joined; the same on all ranks


@dataclass(frozen=True)
class Ranks:
    """The rank and the device of this process, and the number of ranks."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether this process is the first on its machine. The first process fills the machine's cache for the others."""
        return self.world == 1 or os.environ.get("LOCAL_RANK", str(self.rank)) == "0"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join torchrun's process group for the duration of the block, and yield this process's `Ranks`.

    Without torchrun, this process is the only rank. A block inside another one uses the group of the outer block. Raises
    RecipeError if `device` is "cuda" and torch sees no CUDA device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("speed.device is cuda, but torch sees no CUDA device")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if "RANK" not in os.environ:
        yield Ranks(0, 1, torch.device(kind))
        return
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    is_outer = not dist.is_initialized()
    if is_outer:
        # The prefix is new for each group: otherwise ranks read addresses of an earlier group in the store, and wait for ever.
        store, rank, world = next(iter(dist.rendezvous("env://")))
        prefixed = dist.PrefixStore(f"group {next(_GROUPS)}", store)
        backends = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backends, store=prefixed, rank=rank, world_size=world)
    try:
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device("cpu")
        yield Ranks(dist.get_rank(), dist.get_world_size(), own)
    finally:
        if is_outer:
            dist.destroy_process_group()


def distribute(
    module: nn.Module, blocks: list[nn.Module], ranks: Ranks, how: Literal["ddp", "fsdp"],
    read: Callable[[], None] = lambda: None,
) -> nn.Module:  # fmt: skip
    """Return the module wrapped in DDP, or sharded by FSDP2 with each block as a unit. On one rank, return it unchanged.

    Gradients are averaged over the ranks, in fp32 under FSDP2. `read` gives the module's placeholders their values. It is
    called when the module is sharded, so that a rank needs memory only for its share.
    """
    if how == "fsdp" and ranks.world > 1:
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        for block in blocks:
            fully_shard(block, mp_policy=policy)
        # No reshard after forward, because the loss uses the output layer's weight at the end of the forward pass.
        fully_shard(module, mp_policy=policy, reshard_after_forward=False)
    read()
    if how == "fsdp" or ranks.world == 1:
        return module
    trained = {p for p in module.parameters() if p.requires_grad}
    assert trained
    return DistributedDataParallel(module, device_ids=None if ranks.device.type == "cpu" else [ranks.device.index])


@contextmanager
def syncing(module: nn.Module, last: bool) -> Iterator[None]:
    """Synchronize gradients in the block only if `last` is true, which means that the block runs the last micro-batch."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    yield


def all_reduce_sum(values: list[float], ranks: Ranks) -> list[float]:
    """Return the sum of each value over all ranks, added in fp64."""
    if ranks.world == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


def all_gather_objects(value: Any, ranks: Ranks) -> list[Any]:
    """Return every rank's value, in the order of the ranks. Values are JSON values or bytes."""
    if ranks.world == 1:
        return [value]
    values: list[Any] = [None] * ranks.world
    dist.all_gather_object(values, value)
    return values


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor on every rank, given a tensor that may be sharded. Every rank must call this function."""
    if not isinstance(tensor, DTensor):
        return tensor
    if tensor.dtype == torch.int16:  # NCCL does not support int16
        return _gather(tensor.to(torch.int32)).to(torch.int16)
    return _gather(tensor)


def _gather(tensor: Any) -> Tensor:
    return tensor.full_tensor()


def distribute_like(tensor: Tensor, example: Tensor) -> Tensor:
    """Return a copy of `tensor` on the device of `example`, sharded in the same way."""
    share = torch.empty_like(example, dtype=tensor.dtype, requires_grad=False)
    copy_share(tensor, share)
    return share


def copy_share(full: Tensor, target: Tensor) -> None:
    """Copy a full tensor to `target`. If `target` is sharded, copy only this rank's rows, and read only these from a file."""
    if not isinstance(target, DTensor):
        target.copy_(full)
        return
    own = target.to_local()
    rows = -(-len(full) // target.device_mesh.size())  # of each rank but the last; FSDP2 divides the rows like torch.chunk
    start = target.device_mesh.get_local_rank() * rows
    own.copy_(full[start : start + len(own)])


def barrier(ranks: Ranks) -> None:
    """Wait for all ranks."""
    if ranks.world > 1:
        dist.barrier()
