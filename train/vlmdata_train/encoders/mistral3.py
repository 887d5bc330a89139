"""Pixtral's tower with its patches square by square, for an abstractor that merges squares: Mistral 3 (Small 3.1 and later).

P images of one size, N patches, C width, s side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vlmdata_train.encoders.pixtral import Pixtral, Tower
from vlmdata_train.model.encoder_facts import EncoderFacts


class SquareTower(Tower):
    """Normalised pixels (P, 3, H, W) -> (P, N, C), square of s x s patches by square."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__(model)
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the tower and reorder patches. Both sides of the images must be whole squares."""
        patch, side = self.model.config.patch_size, self.side
        squares = (pixels.shape[2] // patch // side, side, pixels.shape[3] // patch // side, side)
        return super().forward(pixels).unflatten(1, squares).transpose(2, 3).flatten(1, 4)


@dataclass(frozen=True)
class Mistral3(Pixtral):
    """Use it with the preprocessing `longest_edge: {square: 2}` and the abstractor `normed_merger`."""

    square: int = 2  # patches on the side of a square

    def facts(self) -> EncoderFacts:
        """Return the facts; `image_size` is one square, the smallest possible image."""
        config = self.load_config()
        return self.sizes(config.hidden_size, config.patch_size * self.square, config.patch_size)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return SquareTower(self.load_model(), self.square)
