"""Pixels before the tower: resizing as Pillow does it (which CLIP and its successors were trained with), normalising.

H, W the size of an image; tiles are uint8 until they are on the training device, a quarter of the bytes to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def resize(image: np.ndarray, height: int, width: int, resample: Resample = "bicubic") -> np.ndarray:
    """Resize uint8 (H, W, 3) with antialiasing: bit-equal to the Pillow backend of transformers' image processors.

    Their torchvision backend rounds elsewhere: up to a quarter of the values differ, by 2 of 255 at most.
    """
    if image.shape[:2] == (height, width):
        return image
    method = Image.Resampling[resample.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def pad(image: np.ndarray, height: int, width: int, *, top: int, left: int, colour: Sequence[int]) -> np.ndarray:
    """Lay uint8 (H, W, 3) on a canvas of one colour, at (top, left)."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = colour
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def mean_colour(mean: Sequence[float]) -> tuple[int, ...]:
    """Return the colour that normalises to about zero, rounded down as LLaVA rounds it."""
    return tuple(int(value * 255) for value in mean)


def to_tiles(tiles: Sequence[np.ndarray]) -> Tensor:
    """Stack uint8 (H, W, 3) images of one size: -> uint8 (tiles, 3, H, W)."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """uint8 (P, 3, H, W) -> (x / 255 - mean) / std, computed in fp32; floats are taken as normalised already."""
    if pixels.dtype != torch.uint8:
        return pixels.to(dtype)
    centre, scale = (torch.tensor(values, device=pixels.device)[:, None, None] * 255 for values in (mean, std))
    return ((pixels.float() - centre) / scale).to(dtype)
