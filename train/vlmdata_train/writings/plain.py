"""An image is a run of image tokens without other tokens, as in LLaVA. The chat template may write tokens around the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.written import Piece, Place, run_of
from vlmdata_train.writings import Writing


@dataclass(frozen=True)
class Plain(Writing):
    """One run of image tokens for each image: LLaVA, PaliGemma, BLIP-2, DeepSeek-VL, and Qwen2-VL with its chat template."""

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return one run for all regions."""
        return [run_of(regions)]
