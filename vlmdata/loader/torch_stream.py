"""The stream as a PyTorch dataset, and a loader that reads the stream in worker processes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vlmdata.arguments import check_bool, check_whole, wrong
from vlmdata.loader.samples import Samples
from vlmdata.loader.schedule import StepLayout


class Stream(Samples, IterableDataset):
    """The samples as a PyTorch dataset.

    Iterate over it directly, through `loader`, or in a DataLoader or StatefulDataLoader.
    """

    def _layout(self) -> StepLayout:
        info = get_worker_info()
        layout = super()._layout()
        if info is None:
            return layout
        return StepLayout(layout.batch_size, layout.rank, layout.world_size, info.id, info.num_workers)

    def loader(
        self,
        num_workers: int = 0,
        *,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        device: str | torch.device | None = None,
    ) -> "Loader":
        """Return a loader in which each of `num_workers` processes prefetches `prefetch_factor` batches.

        The state of the stream follows the batches that the loader has yielded, not the prefetched ones. If `device` is a GPU,
        the tensors of a batch are copied to it from pinned memory while the previous batch is in use. Tensors in dicts, lists
        and tuples are included.
        """
        check_whole(0, num_workers=num_workers)
        check_whole(1, prefetch_factor=prefetch_factor)
        check_bool(pin_memory=pin_memory)
        return Loader(self, num_workers, pin_memory or device is not None, prefetch_factor, device)


class Loader:
    """Iterates over a stream in worker processes. It starts at the position of the stream, and updates that position."""

    def __init__(
        self, stream: Stream, num_workers: int, pin_memory: bool, prefetch_factor: int, device: str | torch.device | None
    ) -> None:
        self.stream = stream
        self.num_workers = num_workers
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.prefetch_factor = prefetch_factor
        try:
            self.device = None if device is None else torch.device(device)
        except (RuntimeError, TypeError):
            raise wrong("device", "a device of torch, such as 'cuda'", device) from None

    def __len__(self) -> int:
        return len(self.stream)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream after the last yielded batch: see `Samples.state_dict`."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the point where `state` was saved: see `Samples.load_state_dict`."""
        self.stream.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        loader: DataLoader = DataLoader(
            _Tagged(self.stream),
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch_factor if self.num_workers else None,
        )
        steps: Iterator[tuple[int, int, Any]] = iter(loader)
        if self.device is not None and self.device.type == "cuda":
            steps = _ahead(steps, self.device)
        origin, skipped = self.stream.position, self.stream.skipped
        for position, newly_skipped, batch in steps:
            skipped += newly_skipped
            self.stream.moved(origin, position, skipped)
            yield batch
        if self.stream.epochs is not None:
            self.stream.finished(origin)


class _Tagged(IterableDataset):
    """The batches of a stream as (position after the batch, number of samples skipped since the previous batch, batch)."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        known = self.stream.skipped
        for position, batch in self.stream.walk():
            yield position, self.stream.skipped - known, batch
            known = self.stream.skipped


def _unchanged(step: Any) -> Any:
    """Return the step, which is already a batch. DataLoader needs a function that it can pickle."""
    return step


def _ahead(steps: Iterator[tuple[int, int, Any]], device: torch.device) -> Iterator[tuple[int, int, Any]]:
    """Yield the batches, each copied to the GPU on a separate CUDA stream while the previous batch is in use."""
    copies = torch.cuda.Stream(device)
    waiting: tuple[int, int, Any] | None = None
    for position, skipped, batch in steps:
        with torch.cuda.stream(copies):
            step = position, skipped, to_device(batch, device)
        if waiting is not None:
            yield waiting
        torch.cuda.current_stream(device).wait_stream(copies)
        _keep(step[2], torch.cuda.current_stream(device))
        waiting = step
    if waiting is not None:
        yield waiting


def to_device(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors moved to a device, including those in dicts, lists and tuples.

    Other values stay unchanged.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        moved = [to_device(item, device) for item in value]
        if isinstance(value, list):
            return moved
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)  # a NamedTuple stays a NamedTuple
    return value


def _keep(value: Any, stream: Any) -> None:
    """Record for CUDA's allocator that `stream` uses the tensors of a batch.

    The tensors were allocated on another stream, so their memory could otherwise be reused too soon.
    """
    if isinstance(value, torch.Tensor):
        value.record_stream(stream)
    elif isinstance(value, dict):
        for item in value.values():
            _keep(item, stream)
    elif isinstance(value, list | tuple):
        for item in value:
            _keep(item, stream)
