"""Prepare pixels for the tower: resize them with Pillow, as in the training of CLIP and its successors, pad and normalise.

H height, W width, P tiles. Tiles stay uint8 until they are on the training device, because a uint8 takes a quarter of the
bytes of a float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def resize(image: np.ndarray, height: int, width: int, resample: Resample = "bicubic") -> np.ndarray:
    """Return an image, uint8 (H, W, 3), resized with antialiasing.

    The result is bit-equal to that of the Pillow backend of transformers' image processors. Their torchvision backend rounds
    differently: up to a quarter of the values differ, by at most 2 of 255.
    """
    if image.shape[:2] == (height, width):
        return image
    method = Image.Resampling[resample.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def resize_sharply(image: np.ndarray, height: int, width: int, resample: Literal["bilinear", "bicubic"]) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), resized without antialiasing. Values are rounded and limited to 0...255."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(pixels, (height, width), mode=resample, align_corners=False)
    return resized.round().clamp(0, 255).byte()[0].permute(1, 2, 0).numpy()


def pad(image: np.ndarray, height: int, width: int, *, top: int, left: int, colour: Sequence[int]) -> np.ndarray:
    """Return a canvas, uint8 (height, width, 3), of one colour, with the image's top left corner at (top, left)."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = colour
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def mean_colour(mean: Sequence[float]) -> tuple[int, ...]:
    """Return the colour that becomes about zero when it is normalised with this mean. It is rounded down, as in LLaVA."""
    return tuple(int(value * 255) for value in mean)


def to_tiles(tiles: Sequence[np.ndarray]) -> Tensor:
    """Stack images of one size: uint8 (H, W, 3) each -> uint8 (P, 3, H, W)."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Return pixels, uint8 (P, 3, H, W), as (x / 255 - mean) / std in `dtype`. The computation is in fp32.

    Pixels that are not uint8 count as already normalised. A tile of k frames has 3 k channels, frame by frame.
    """
    if pixels.dtype != torch.uint8:
        return pixels.to(dtype)
    frames = pixels.shape[1] // len(mean)
    centre, scale = (torch.tensor([*values] * frames, device=pixels.device)[:, None, None] * 255 for values in (mean, std))
    return ((pixels.float() - centre) / scale).to(dtype)
