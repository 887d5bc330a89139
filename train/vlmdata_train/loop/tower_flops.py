"""Floating-point operations (FLOPs) of towers that do not process as many patches as they return.

P tiles, H height, W width.
"""

from __future__ import annotations

from functools import cache

import torch

from vlmdata_train.loop.measured_flops import META, measure, on_meta
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel


class TowerFlops:
    """Counts the FLOPs of several towers side by side, or of a tower that reduces its grid, for a batch.

    Such towers process other numbers of patches than they return, for example Segment Anything in DeepSeek-VL. So the towers
    run once for each size of tiles, and torch counts the operations (see `measure`). Make it before the model is compiled and
    distributed.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.encoder, self.copies = on_meta(model.encoder), model.plan.copies
        self.dtype = model.language.get_input_embeddings().weight.dtype
        self._of_tiles = cache(self._measure_tiles)

    def of_batch(self, batch: Batch) -> int:
        """Return the FLOPs for a batch."""
        tiles = [tuple(tile.shape) for tile in batch.pixels]
        return sum(self._of_tiles(*tiles[start : start + self.copies]) for start in range(0, len(tiles), self.copies))

    def _measure_tiles(self, *shapes: tuple[int, ...]) -> int:
        """Return the FLOPs for a tile, or for one tile of each tower. Each shape is (3, H, W)."""
        pixels = [torch.empty(1, *shape, dtype=self.dtype, device=META) for shape in shapes]
        return measure(lambda: [self.encoder(pixels if self.copies > 1 else pixels[0])])


def reduces(model: VisionLanguageModel) -> bool:
    """Return whether a model's encoder has several towers, or a tower whose grid does not depend on the size of a tile."""
    return bool(model.plan.facts.towers or model.plan.facts.side)
