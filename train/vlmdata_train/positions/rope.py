"""One position per token, counted from 0 in each sample: what rotary and learned positions both take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vlmdata_train.model.batch import Batch
from vlmdata_train.model.image_plan import ImagePlan


@dataclass(frozen=True)
class Rope:
    """Positions as the loader counted them; image tokens take one each."""

    def position_ids(self, batch: Batch, plan: ImagePlan, image_token_id: int) -> Tensor:
        """Return (B, T) positions, restarting at every segment."""
        return batch.position_ids

    def after(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """Return the lengths: positions are counted."""
        return lengths

    def prepare(self, language: Any) -> None:
        """Change nothing: this is what every language model reads."""
