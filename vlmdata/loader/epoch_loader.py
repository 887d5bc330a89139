"""A loader for the trainers of other projects, which count the batches of an epoch and save checkpoints in its middle."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from vlmdata.arguments import wrong
from vlmdata.errors import InputError
from vlmdata.loader.torch_stream import Loader, Stream


class EpochLoader:
    """Yields the rest of an epoch in each iteration.

    The length is the number of batches in the whole epoch, even if a resumed run reads only some of them.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.stream = loader.stream
        self.per_step = (loader.stream.batch_size or 1) * loader.stream.world_size  # samples of one batch of all ranks
        self.done = 0  # batches of this epoch that were yielded, by this run and by the run that it resumes

    def __len__(self) -> int:
        return self.done + self.stream.steps_left()

    def __iter__(self) -> Iterator[Any]:
        origin = self.stream.position
        for batch in self.loader:
            self.done += 1
            if self.stream.epochs is not None and not self.stream.steps_left():
                self.stream.finished(origin)  # now, because a trainer that knows the length does not ask for another batch
                self.done = 0
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last yielded batch. It is the same on all ranks."""
        return {**self.stream.state_dict(), "done": self.done, "per_step": self.per_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the point where `state` was saved. Raises ValueError if the index or the order has changed."""
        self.stream.load_state_dict(state)
        self.done = int(state.get("done", 0))


def check_stream(stream: Any, *, batched: bool) -> None:
    """Raise ValueError (InputError) if `stream` is not a Stream that makes batches or, with batched=False, single samples."""
    if not isinstance(stream, Stream):
        raise wrong("the training data", "a stream, the result of vlmdata.stream(...)", stream)
    if batched and stream.batch_size is None:
        raise InputError("pass batch_size= and collate_fn= to the stream, which makes the batches")
    if not batched and stream.batch_size is not None:
        raise InputError("pass neither batch_size= nor collate_fn= to the stream: this trainer makes the batches")


def share_of(stream: Stream, rank: int, world_size: int) -> Stream:
    """Return a copy of a stream that reads the share of one rank.

    A stream can be made before the trainer starts its ranks, and then does not know its rank. The user's stream does not move.
    """
    share = copy.copy(stream)
    share.rank, share.world_size = rank, world_size
    return share
