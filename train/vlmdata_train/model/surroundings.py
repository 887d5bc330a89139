"""What an abstractor may read besides a tile: the question, the other tiles of the sample, and the times of frames.

P tiles, S samples, L tokens of a question, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of all tiles of a batch. An abstractor must not mix tiles or questions of different samples."""

    of_image: Tensor  # (P,) index of the image or video of each tile, in increasing order
    of_sample: Tensor  # (P,) index of the sample of each tile
    times: Tensor  # (P,) time of each tile in its video, in seconds; 0 for images
    questions: Tensor  # (S, L) ids of each sample's question, padded with -1
    embed: Callable[[Tensor], Tensor]  # the language model's embeddings of ids: (...) -> (..., D)
    images: Sequence[tuple[int, bool]] = ()  # tiles of each image or video, and whether it is a video; numbers on the host

    @staticmethod
    def of_one_tile(device: torch.device, embed: Callable[[Tensor], Tensor]) -> Surroundings:
        """Return the surroundings of a single tile without a question."""
        none = torch.zeros(1, dtype=torch.int64, device=device)
        return Surroundings(none, none, none.float(), none[:, None][:, :0], embed, ((1, False),))
