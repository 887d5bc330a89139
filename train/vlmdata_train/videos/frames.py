"""Each frame of a video is encoded like an image of one tile, and the features of the frames follow each other.

InternVL, SmolVLM and LLaMA-VID read videos in this way. Their writings put text before each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.parts import make_part
from vlmdata_train.videos import Sampled, of_one_size


@dataclass(frozen=True)
class Frames(Sampled):
    """Frames that are prepared like images. `preprocessing` must make one tile of a frame, without an arrangement of tiles."""

    preprocessing: Any = "resize"  # an entry like the recipe's `preprocessing`; None: the model's preprocessing

    def regions(self, times: Sequence[float], width: int, height: int, plan: Any) -> list[Region]:
        """Return a region for each frame. Raises ValueError if the preprocessing makes several tiles of a frame."""
        part = self._part(plan)
        regions: list[Region] = part.regions(width, height, plan.facts, plan.grid_of)
        if len(regions) != 1 or part.build(plan.facts, plan.grid_of, 1) is not None:
            raise ValueError("video: the preprocessing of a frame must make one tile. Set `frames: {preprocessing: resize}`")
        return regions * len(times)

    def prepare(self, frames: Sequence[np.ndarray], plan: Any) -> Tensor:
        """Return one tile for each frame: uint8 (H, W, 3) each -> uint8 (frames, 3, H, W)."""
        part = self._part(plan)
        return torch.cat([part.prepare(frame, plan.facts) for frame in of_one_size(frames, part.resample)])

    def arrange(self, tiles: Sequence[Tensor], arrangement: nn.Module | None) -> Tensor:
        """Return the features of all frames in order."""
        return torch.cat(list(tiles))

    def _part(self, plan: Any) -> Any:
        return plan.preprocessing if self.preprocessing is None else make_part("preprocessing", self.preprocessing)
