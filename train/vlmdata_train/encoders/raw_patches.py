"""Uses the pixels of each patch as its features, without a tower, as Fuyu and OtterHD do.

Bavishi et al. 2023, Fuyu-8B. P images, N patches, p the side of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vlmdata_train.model.encoder_facts import EncoderFacts


class Patches(nn.Module):
    """Maps pixels (P, 3, H, W) to features (P, N, 3 p p), without weights.

    The values of a patch are ordered by row, column and channel.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        """Cut the images into patches without overlap, in reading order."""
        cut = pixels.unfold(2, self.side, self.side).unfold(3, self.side, self.side)  # (P, 3, rows, columns, p, p)
        return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


@dataclass(frozen=True)
class RawPatches:
    """Pixels as features, for images whose sides are multiples of `patch_size`.

    Only a preprocessing that makes square images uses `image_size`.
    """

    patch_size: int = 30  # as in Fuyu
    image_size: int = 300

    def facts(self) -> EncoderFacts:
        """Return the facts. Normalised pixels are in [-1, 1], as in Fuyu."""
        half = (0.5, 0.5, 0.5)
        return EncoderFacts(3 * self.patch_size**2, self.image_size, self.patch_size, mean=half, std=half)

    def build(self) -> nn.Module:
        """Return the module that cuts images into patches."""
        return Patches(self.patch_size)
