"""Prefetch of one micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from vlmdata_train.data.feed import Feed
from vlmdata_train.data.sample_positions import FeedPosition
from vlmdata_train.loop.train_step import MicroBatch


class Prefetcher:
    """Takes micro-batches from a feed. It fetches one micro-batch in advance and copies it to the device."""

    def __init__(self, feed: Feed, device: torch.device) -> None:
        self._batches: Iterator[Any] = iter(feed)
        self._device = device
        self._next: tuple[MicroBatch, FeedPosition] | None = None
        self.position = feed.position

    def fetch(self) -> None:
        """Fetch the next micro-batch, if there is one, and start to copy it to the device."""
        if self._next is None and (item := next(self._batches, None)) is not None:
            self._next = MicroBatch.of(item[0], self._device), item[1]

    def take(self, count: int) -> list[MicroBatch]:
        """Return the next `count` micro-batches, or fewer at the end of the data.

        This sets `position` to the feed's position after them.
        """
        micros = []
        for _ in range(count):
            self.fetch()
            if self._next is None:
                break
            micro, self.position = self._next
            self._next = None
            micros.append(micro)
        return micros

    def close(self) -> None:
        """Stop the feed's threads."""
        self._batches.close()  # type: ignore[attr-defined]
