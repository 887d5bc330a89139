"""A batch of packed or padded tokens with its images, passed from `data` to `model`.

B rows (1 if packed), T tokens, P tiles of all images, I images and videos, R runs of image tokens, S samples. A run is
a sequence of image tokens that the writing of an image makes. Many writings make one run for each image.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

IGNORE = -100  # the label of a token without a loss


@dataclass
class Batch:
    """One row of packed tokens (B = 1), or B padded rows, with the images of all rows in reading order."""

    input_ids: Tensor  # (B, T) int64; image token positions hold image_token_id
    labels: Tensor  # (B, T) int64, IGNORE for a token without a loss
    position_ids: Tensor  # (B, T) int64, restarts at 0 for each packed segment
    segment_ids: Tensor  # (B, T) int32: 1, 2, ... for packed samples, 0 for padding
    pixels: list[Tensor] | Tensor  # (P, 3, H, W) if all have one size, else a list of (3, H, W); 3 k channels for k frames
    image_token_counts: Tensor  # (I,) tokens of each image, in reading order
    grids: Tensor  # (R, 3) frames, rows and columns of each run of image tokens, or zeros for a run without a grid
    intervals: Tensor  # (R,) float32 seconds between the frames of each run
    tile_counts: Tensor  # (I,) tiles of each image, 1 without tiling; they sum to P
    image_sizes: Tensor  # (I, 2) original (height, width); of a video, that of its first frame
    of_sample: Tensor  # (I,) index of the sample of each image
    is_video: Tensor  # (I,) bool
    times: Tensor  # (P,) float32 time of each tile in its video, in seconds; 0 for images
    questions: Tensor  # (S, L) ids of each sample's question, padded with -1; L is 0 if the abstractor reads no question
    sources: list[str]  # dataset of each sample, for the loss per source
    keys: list[str]  # "TAR KEY" of each sample, for errors
    taken: int = 0  # samples read since the previous batch, used or not
