"""One position per token, counted from 0 in each sample, for rotary and learned positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vlmdata_train.model.batch import Batch


@dataclass(frozen=True)
class Rope:
    """Positions that count every token of a sample, including each image token. The batch already holds them."""

    def position_ids(self, batch: Batch, image_token_id: int) -> Tensor:
        """Return (B, T) positions, which restart at every segment."""
        return batch.position_ids

    def after(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """Return the next position of each row: (B,). It is the row's length, because positions count tokens."""
        return lengths

    def prepare(self, language: Any) -> None:
        """Change nothing, because every language model accepts these positions."""
