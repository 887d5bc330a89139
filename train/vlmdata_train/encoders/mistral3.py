"""Pixtral's tower with its patches in order of squares, which an abstractor merges: Mistral 3 (Small 3.1 and later).

P images of one size, N patches, C width, s side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vlmdata_train.encoders.pixtral import Pixtral, Tower
from vlmdata_train.model.encoder_facts import EncoderFacts


class SquareTower(Tower):
    """Normalised pixels (P, 3, H, W) -> (P, N, C), the patches of each square of s x s one after the other."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__(model)
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        """Both sides of the images are whole squares."""
        patch, side = self.model.config.patch_size, self.side
        squares = (pixels.shape[2] // patch // side, side, pixels.shape[3] // patch // side, side)
        return super().forward(pixels).unflatten(1, squares).transpose(2, 3).flatten(1, 4)


@dataclass(frozen=True)
class Mistral3(Pixtral):
    """Goes with the preprocessing `longest_edge: {square: 2}` and the abstractor `normed_merger`."""

    square: int = 2  # patches on the side of a square

    def facts(self) -> EncoderFacts:
        """Return sizes; the image size is one square, the smallest image that there is."""
        config = self.load_config()
        return self.sizes(config.hidden_size, config.patch_size * self.square, config.patch_size)

    def build(self) -> nn.Module:
        """Make the tower with its weights."""
        return SquareTower(self.load_model(), self.square)
