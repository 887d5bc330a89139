"""What the data half hands to the model half: one batch of packed or padded tokens with its images.

B rows (1 when packed), T tokens, P images (or tiles) of the whole batch, I images.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

IGNORE = -100  # the label of a token without a loss


@dataclass
class Batch:
    """B=1 row of packed tokens, or B padded rows; images of all rows in reading order."""

    input_ids: Tensor  # (B, T) int64; image token positions hold image_token_id
    labels: Tensor  # (B, T) int64, IGNORE where no loss
    position_ids: Tensor  # (B, T) int64, restarts at 0 for each packed segment
    segment_ids: Tensor  # (B, T) int32, 1.. for packed samples, 0 = padding
    pixels: list[Tensor] | Tensor  # (P, 3, H, W) when all have one size, else a list of (3, H, W)
    image_token_counts: Tensor  # (I,) token positions each image takes, in reading order
    tile_counts: Tensor  # (I,) tiles per image, 1 without tiling; they sum to P
    image_sizes: Tensor  # (I, 2) original (height, width)
    sources: list[str]  # per sample, the stream it came from, for the loss per source
    keys: list[str]  # per sample "tar key", to name what went wrong
    taken: int = 0  # samples of the plan that came by since the batch before, also those that gave nothing
