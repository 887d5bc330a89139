"""A batch of samples that knows the position of the stream after it."""

from typing import Any

from vlmdata.errors import InputError


class StreamBatch(list):
    """A batch of samples.

    `position` is the position of the stream after the batch: the number of samples that all ranks together have yielded.
    `skipped` is the number of samples that this process has skipped so far.
    """

    position: int
    skipped: int


def position_of(batch: Any) -> int:
    """Return the stream's position after a batch. Raises ValueError if the batch does not have a position."""
    position = getattr(batch, "position", None)
    if position is None:
        raise InputError("the batch has no position. Pass batch_size=N to the stream, and batch_size=None to the DataLoader")
    return position
