"""Trains on a stream with the Trainer of transformers, or with a trainer that inherits from it, such as TRL's SFTTrainer."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from vlmdata.errors import InputError
from vlmdata.loader.epoch_loader import EpochLoader, check_stream, share_of
from vlmdata.loader.torch_stream import Loader, Stream


class TrainsOnStream:
    """Makes a trainer read its `train_dataset` from a stream: `class StreamTrainer(TrainsOnStream, Trainer): pass`.

    Each rank reads its own share. The position of the stream is part of the trainer's checkpoints, and `resume_from_checkpoint`
    continues there without reading again what was trained on. Batches have `per_device_train_batch_size` samples and go through
    the trainer's `data_collator`, in `dataloader_num_workers` processes.
    """

    args: Any
    data_collator: Any

    def __init__(self, *positional: Any, train_dataset: Any = None, **options: Any) -> None:
        """Raises ValueError (InputError) if `train_dataset` is not a stream of single samples."""
        check_stream(train_dataset, batched=False)
        self.stream: Stream = train_dataset
        is_trl = any(kind.__module__.startswith("trl.") for kind in type(self).__mro__)
        data = _as_datasets(self.stream) if is_trl else self.stream
        super().__init__(*positional, train_dataset=data, **options)  # type: ignore[call-arg]
        if getattr(self, "train_dataset", None) is not data:
            raise InputError(
                "this trainer would tokenize the dataset beforehand, which a stream does not allow. Let decode= return the"
                ' tokens, and pass SFTConfig(dataset_kwargs={"skip_prepare_dataset": True})'
            )
        self.add_callback(StreamPosition)  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> Any:
        """Return the batches of this rank. Trainer calls this method when a training begins."""
        share = share_of(self.stream, self.args.process_index, self.args.world_size)
        share.batch_size, share.collate_fn = self.args.train_batch_size, self.data_collator
        share.drop_last = share.drop_last or self.args.dataloader_drop_last
        loader = share.loader(
            self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor or 2,
        )
        return SkippingLoader(loader)


class SkippingLoader(EpochLoader, IterableDataset):
    """Yields None in place of the batches that a resumed trainer skips.

    A trainer skips what it trained on with accelerate's `skip_first_batches`, which makes a DataLoader of `dataset` with the
    options below, and reads and discards batches. The next iteration of this class begins with `skips` times None instead.
    """

    batch_size = None
    drop_last = False
    num_workers = 0  # of that DataLoader: the stream's loader has workers of its own
    prefetch_factor = None

    def __init__(self, loader: Loader) -> None:
        super().__init__(loader)
        self.skips = 0

    @property
    def dataset(self) -> SkippingLoader:
        return self

    def collate_fn(self, batch: Any) -> Any:
        """Return the batch, which is made already."""
        return batch

    def __iter__(self) -> Iterator[Any]:
        skips, self.skips = self.skips, 0
        return itertools.chain(itertools.repeat(None, skips), super().__iter__())


class StreamPosition(TrainerCallback, ExportableState):
    """Writes the position of the stream into trainer_state.json, and continues there."""

    def __init__(self) -> None:
        self.loader: SkippingLoader | None = None
        self.per_update = 0  # samples of one update of the weights, over all ranks

    def state(self) -> dict[str, Any]:
        """Return what Trainer writes into trainer_state.json when it saves a checkpoint."""
        if self.loader is None:
            return {"args": {}, "attributes": {}}
        return {"args": {}, "attributes": {"saved": {**self.loader.state_dict(), "per_update": self.per_update}}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Move the stream to the position in the checkpoint that the trainer has just loaded.

        Raises ValueError (InputError) if the checkpoint has no position, if the data changed, or if an update of the weights
        has another number of samples, because Trainer counts the epochs in updates.
        """
        loader = self.loader = given["train_dataloader"]
        steps = args.gradient_accumulation_steps
        self.per_update = args.train_batch_size * args.world_size * steps
        if state.global_step == 0:
            return
        saved = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {}).get("saved")
        if saved is None:
            raise InputError("the checkpoint has no position of a stream, because it was saved without TrainsOnStream")
        is_endless = loader.stream.epochs is None
        if not is_endless and saved["per_update"] != self.per_update:
            raise InputError(
                f"the checkpoint was saved with {saved['per_update']} samples per update, and now there are {self.per_update}."
                " Trainer counts epochs in updates: keep per_device_train_batch_size x ranks x gradient_accumulation_steps, or"
                " train with max_steps on a stream with epochs=None"
            )
        updates = state.max_steps if is_endless else math.ceil(len(loader) / steps)
        loader.skips = 0 if args.ignore_data_skip else state.global_step % updates * steps
        loader.load_state_dict(saved)


def _as_datasets(stream: Stream) -> Any:
    """Return a dataset for TRL's trainers, which take only those of `datasets` and look at the first sample.

    It has the length of the stream and yields its samples. The stream does not move.
    """
    from datasets import IterableDataset as Datasets
    from datasets.iterable_dataset import ExamplesIterable

    class StreamDataset(Datasets):
        def __init__(self) -> None:
            super().__init__(ExamplesIterable(lambda: enumerate(self), {}))

        def __iter__(self) -> Iterator[Any]:
            return iter(copy.copy(stream))

        def __len__(self) -> int:
            return len(stream)

    return StreamDataset()
