"""Mistral 3's tower (Small 3.1 and later): Pixtral's tower with its patches ordered square by square.

A square is s x s neighbouring patches, which the abstractor `normed_merger` turns into one token.
P images of one size, N patches, C width, s side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vlmdata_train.encoders.pixtral import Pixtral, PixtralTower
from vlmdata_train.model.encoder_facts import EncoderFacts


class SquareTower(PixtralTower):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C), one square of s x s patches after the other."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__(model)
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the tower and reorder the patches. Both sides of the images must be multiples of the side of a square."""
        patch, side = self.model.config.patch_size, self.side
        squares = (pixels.shape[2] // patch // side, side, pixels.shape[3] // patch // side, side)
        return super().forward(pixels).unflatten(1, squares).transpose(2, 3).flatten(1, 4)


@dataclass(frozen=True)
class Mistral3(Pixtral):
    """Mistral 3's tower. Use it with the preprocessing `longest_edge: {square: 2}` and the abstractor `normed_merger`."""

    square: int = 2  # number of patches on one side of a square

    def facts(self) -> EncoderFacts:
        """Return the facts. `image_size` is the side of the smallest possible image, which is one square of patches."""
        config = self.load_config()
        return self.sizes(config.hidden_size, config.patch_size * self.square, config.patch_size)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return SquareTower(self.load_model(), self.square)
