"""Compute class probabilities with GantMan's NSFW MobileNetV2. B images, C channels, H x W pixels, K classes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor
from torch.nn import functional as F

from vlmdata.errors import RecipeError
from vlmdata.models.image_batches import opened
from vlmdata.models.nsfwjs_folder import DENSE, LABELS, PARTS, SIZE, WEIGHTS, Convolution, blocks, check_converted, shapes
from vlmdata.models.weights_identity import unusable_weights
from vlmdata.untrusted import Failed, errors_as

EPSILON = 1e-3  # of the batch normalisations

Tensors = dict[str, NDArray[np.float64]]


class Folded(NamedTuple):
    """A convolution with the batch normalisation multiplied into it."""

    weight: Tensor
    bias: Tensor
    stride: int
    groups: int
    is_clipped: bool

    def __call__(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        if self.stride == 2:  # Keras pads a stride of 2 on the right and below only
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, 2, 0, groups=self.groups)
        else:
            x = F.conv2d(x, self.weight, self.bias, 1, size // 2, groups=self.groups)
        return x.clamp_(0, 6) if self.is_clipped else x


class NsfwMobileNet:
    """The network of a folder that `convert_nsfwjs` wrote, in fp32. It has the methods of `ImageClassifier`."""

    def __init__(self, folder: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.labels = list(LABELS)
        config = json.loads((Path(folder) / "config.json").read_text())
        check_converted(Path(folder), config)
        self.resize: str = config["resize"]
        tensors = _dequantised(Path(folder) / WEIGHTS, config["quantization"])
        self._blocks = [[_folded(one, tensors, self.device) for one in block] for block in blocks()]
        self._dense = [
            tuple(
                torch.tensor(tensors[f"{name}/{part}"].T, dtype=torch.float32, device=self.device)
                for part in ("kernel", "bias")
            )
            for name, _, _ in DENSE
        ]

    @torch.inference_mode()
    def forward(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of `labels` for pixels in [0, 1]: (B, 224, 224, 3) -> (B, 5)."""
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)  # (B, C, H, W), with the channels last in memory
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for block in self._blocks:
                before = x
                for convolution in block:
                    x = convolution(x)
                if len(block) > 1 and x.shape == before.shape:
                    x = x + before
            x = x.mean((2, 3))  # (B, 1280)
            for number, (weight, bias) in enumerate(self._dense, 1):
                x = F.linear(x, weight, bias)
                x = x.relu() if number < len(self._dense) else x.softmax(-1)
        return x.cpu().numpy()

    def probabilities(self, bodies: Iterable[bytes], batch: int) -> np.ndarray:
        """Return the probabilities for each encoded image, fp32 (B, 5). Images that cannot be decoded give NaN."""
        stream = iter(bodies)
        parts = []
        while group := list(itertools.islice(stream, batch)):
            pixels = [_pixels(body, self.resize) for body in group]
            broken = [one is None for one in pixels]
            # always a full batch, so that a result depends only on its image
            full = np.zeros((batch, SIZE, SIZE, 3), np.float32)
            for number, one in enumerate(pixels):
                full[number] = 0 if one is None else one
            found = self.forward(full)[: len(group)]
            found[broken] = np.nan
            parts.append(found)
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)


def squashed(image: Image.Image, resize: str) -> NDArray[np.float32]:
    """Return the pixels of an RGB image as the network's input, in [0, 1]: (224, 224, 3). `resize` is one of RESIZES."""
    if image.size != (SIZE, SIZE) and resize == "bicubic":
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    values = np.asarray(image)
    if image.size == (SIZE, SIZE):
        return (values / np.float32(255)).astype(np.float32, copy=False)
    top, bottom, down = _corners(image.height)
    left, right, across = _corners(image.width)
    down, across = down[:, None, None], across[None, :, None]

    def mixed(rows: NDArray[np.int64]) -> NDArray[np.floating]:  # only the pixels that count become floats
        a, b = (values[np.ix_(rows, columns)].astype(np.float32) / 255 for columns in (left, right))
        return a + (b - a) * across

    above, below = mixed(top), mixed(bottom)
    return (above + (below - above) * down).astype(np.float32)


def _corners(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return for each output pixel the two nearest input pixels and the share of the second. The corners stay corners."""
    places = np.arange(SIZE, dtype=np.float32) * np.float32((length - 1) / (SIZE - 1))
    first = np.floor(places).astype(np.int64).clip(0, length - 1)
    return first, np.minimum(first + 1, length - 1), places - first.astype(np.float32)


def _pixels(body: bytes, resize: str) -> NDArray[np.float32] | None:
    with suppress(Failed), errors_as(Failed, passes=(MemoryError,)):  # lack of memory does not mean that the image is broken
        return squashed(opened(body), resize)
    return None


def _dequantised(file: Path, ranges: dict[str, list[float]]) -> Tensors:
    """Return the weights, which are stored as uint8, rounded to float32 as TensorFlow.js does it."""
    with errors_as(lambda error: unusable_weights(str(file), error), passes=(MemoryError, OSError)):
        stored = load_file(file)
    wanted = shapes()
    if {name: values.shape for name, values in stored.items()} != wanted or {v.dtype for v in stored.values()} != {
        np.dtype("u1")
    }:
        raise RecipeError(f"the weights {file} are not those of this network. Convert the package again")
    return {name: (v * ranges[name][1] + ranges[name][0]).astype(np.float32).astype(np.float64) for name, v in stored.items()}


def _folded(one: Convolution, tensors: Tensors, device: torch.device) -> Folded:
    kernel = tensors[one.kernel[0]]  # (height, width, inputs, outputs), or (height, width, channels, 1)
    gamma, beta, mean, variance = (tensors[f"{one.norm}/{part}"] for part in PARTS)
    factor = gamma / np.sqrt(variance + EPSILON)
    kernel = kernel.transpose(2, 3, 0, 1) if one.is_depthwise else kernel.transpose(3, 2, 0, 1)
    weight = torch.tensor(kernel * factor[:, None, None, None], dtype=torch.float32, device=device)
    bias = torch.tensor(beta - mean * factor, dtype=torch.float32, device=device)
    groups = one.inputs if one.is_depthwise else 1
    return Folded(weight.contiguous(memory_format=torch.channels_last), bias, one.stride, groups, one.is_clipped)
