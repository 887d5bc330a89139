"""What an abstractor may read besides a tile: the question, the other tiles of the sample, and the times of frames.

P tiles, S samples, L tokens of a question, D width of the language model, N patches, C width of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


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

    def question_of_tiles(self) -> tuple[Tensor, Tensor]:
        """Return the ids of each tile's question (P, L), 0 for padding, and which of them are not padding, bool (P, L).

        L is 1 or more, so that the layers for text run and get gradients also if no sample has a question.
        """
        ids = self.questions if self.questions.shape[1] else functional.pad(self.questions, (0, 1), value=-1)
        ids = ids[self.of_sample]
        return ids.clamp(min=0), ids >= 0


@dataclass(frozen=True)
class TextFacts:
    """Facts of the language model for an abstractor that reads text."""

    width: int  # length of an embedding
    vocabulary: int  # number of tokens of the tokenizer


def build_abstractor(part: Any, facts: EncoderFacts, out_width: int, grid: Grid, text: TextFacts) -> nn.Module:
    """Return the module of an abstractor. A part that reads the question also gets the facts of the language model."""
    more = {"text": text} if hasattr(part, "question_ids") else {}
    module: nn.Module = part.build(facts, out_width, grid, **more)
    return module


def padded(tiles: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the patches of tiles, (N, C) each, as one tensor (P, N, C), and which patches are not padding, bool (P, N)."""
    patches = pad_sequence(list(tiles), batch_first=True)
    counts = torch.tensor([len(tile) for tile in tiles]).to(patches.device, non_blocking=True)
    return patches, torch.arange(patches.shape[1], device=patches.device) < counts[:, None]
