"""Trains on a stream with the Trainer of Lightning."""

from __future__ import annotations

from typing import Any

import lightning

from vlmdata.errors import InputError
from vlmdata.loader.epoch_loader import EpochLoader, check_stream, share_of
from vlmdata.loader.torch_stream import Stream


class StreamData(lightning.LightningDataModule):
    """Gives a stream to Lightning: `Trainer(...).fit(model, datamodule=StreamData(stream, num_workers=4))`.

    Each rank reads its own share. The position of the stream is part of Lightning's checkpoints, and `ckpt_path` continues
    there. The stream makes the batches (`batch_size`, `collate_fn`).
    """

    def __init__(self, stream: Stream, num_workers: int = 0, **options: Any) -> None:
        """`options` are those of `Stream.loader`. Raises ValueError (InputError) for a stream that Lightning cannot resume."""
        super().__init__()
        check_stream(stream, batched=True)
        if stream.epochs is None:
            raise InputError(
                "Lightning reads one batch ahead of an endless stream, so its checkpoints would lose that batch. Use"
                " stream(epochs=1) with Trainer(max_steps=) or Trainer(max_epochs=)"
            )
        self.stream = stream
        self.num_workers, self.options = num_workers, options
        self.loader: EpochLoader | None = None
        self._saved: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Begin a training, a test or a prediction. Lightning calls this method before `load_state_dict`."""
        self.loader = self._saved = None

    def train_dataloader(self) -> EpochLoader:
        """Return the batches of this rank, from the position in the checkpoint if there is one.

        Raises InputError for a checkpoint without a position, or with another number of samples per batch of all ranks, because
        Lightning counts the batches of an epoch.
        """
        trainer: Any = self.trainer
        if trainer is None:
            raise InputError("StreamData needs a trainer: trainer.fit(model, datamodule=StreamData(...))")
        if self.loader is None:
            share = share_of(self.stream, trainer.global_rank, trainer.world_size)
            self.loader = EpochLoader(share.loader(self.num_workers, **self.options))
            if self._saved is not None:
                if (before := self._saved.get("per_step")) != self.loader.per_step:
                    raise InputError(
                        f"the checkpoint was saved with {before} samples per step, and now there are {self.loader.per_step}."
                        " Lightning counts the steps of an epoch: keep batch_size x ranks"
                    )
                self.loader.load_state_dict(self._saved)
            elif trainer.ckpt_path is not None:
                raise InputError(
                    f"{trainer.ckpt_path} has no position of a stream, because it was saved without {type(self).__qualname__}"
                )
        return self.loader

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning writes into a checkpoint."""
        return {} if self.loader is None else self.loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the position in a checkpoint. Lightning calls this method before it asks for the batches."""
        self._saved = state_dict
