"""Llama 3.2 Vision's tower: it reads all tiles of an image at once and also returns the states of earlier layers.

Dubey et al. 2024, The Llama 3 Herd of Models. P tiles of all images, I images, S maximum tiles of an image, N patches and the
class token of a tile, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.mllama.modeling_mllama import MllamaVisionModel

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD, VisionHalf


class MllamaTower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C): the last states, then those of the chosen earlier layers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        """Encode the images. `grids` has the (rows, columns) of tiles of each image.

        Each image is padded to S tiles with zeros. This padding cannot be left out. The mask of the published tower hides
        absent tiles only from each other, so the tiles of the image attend to them.
        """
        config = self.model.config
        counts = torch.tensor([rows * columns for rows, columns in grids])
        present = torch.arange(config.max_num_tiles) < counts[:, None]  # (I, S)
        places = present.flatten().nonzero()[:, 0].to(pixels.device)  # found on the CPU, because a GPU would be waited for
        tiles = pixels.new_zeros(present.numel(), *pixels.shape[1:]).index_copy(0, places, pixels)
        numbers = torch.tensor([1 + config.supported_aspect_ratios.index(list(grid)) for grid in grids])
        states = self.model(
            tiles.unflatten(0, (len(grids), 1, -1)),
            aspect_ratio_ids=numbers[:, None].to(pixels.device),
            aspect_ratio_mask=present[:, None].to(pixels.device, torch.int64),
        ).last_hidden_state  # (I, 1, S, N, C)
        return states.flatten(0, 2)[places]  # (P, N, C)


@dataclass(frozen=True)
class Mllama(VisionHalf):
    """Llama 3.2 Vision's tower. Use it with the preprocessing `tiles_by_aspect`.

    The mean and the standard deviation are CLIP's, as in public copies of the published processor's configuration.
    """

    kind = MllamaVisionModel
    place = "vision_model"

    def facts(self) -> EncoderFacts:
        """Return the facts. The class token of each tile is one of its features."""
        config = self.load_config()
        width = config.hidden_size * (1 + len(config.intermediate_layers_indices))
        grids = tuple((rows, columns) for rows, columns in config.supported_aspect_ratios)
        return EncoderFacts(
            width, config.image_size, config.patch_size, CLIP_MEAN, CLIP_STD, extra=1, tile_grids=grids
        )  # fmt: skip

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return MllamaTower(self.load_model())
