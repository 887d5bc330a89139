"""The folder of GantMan's NSFW MobileNetV2 that `vlmdata.models.convert_nsfwjs` writes: its files, tensors and checks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from vlmdata.errors import RecipeError
from vlmdata.models.clip_names import weights_problem
from vlmdata.untrusted import shown

FORMAT = "nsfwjs mobilenet_v2"  # the value of `format` in config.json
WEIGHTS = "model.safetensors"  # uint8, in the order of axes of Keras
LABELS = ("drawings", "hentai", "neutral", "porn", "sexy")  # github.com/GantMan/nsfw_model, in the order of the outputs
SIZE = 224  # pixels of a side
# bicubic: Pillow's, as OBELICS resizes (huggingface/OBELICS, 07_01_nsfw_image_filtering.py). bilinear_corners: TensorFlow's
# resizeBilinear with alignCorners, as nsfwjs does. Both squash the picture to a square.
RESIZES = ("bicubic", "bilinear_corners")
PARTS = ("gamma", "beta", "moving_mean", "moving_variance")  # of a batch normalisation
DENSE = (("dense_1", 1280, 256), ("dense_2", 256, 128), ("dense_3", 128, 5))


class Convolution(NamedTuple):
    """A convolution with batch normalisation. `name` and `norm` are those of Keras's layers."""

    name: str
    norm: str
    inputs: int
    outputs: int
    size: int  # of the kernel, in pixels
    stride: int
    is_depthwise: bool
    is_clipped: bool  # whether ReLU6 follows

    @property
    def kernel(self) -> tuple[str, tuple[int, ...]]:
        """The name and the shape of the kernel."""
        if self.is_depthwise:
            return f"{self.name}/depthwise_kernel", (self.size, self.size, self.inputs, 1)
        return f"{self.name}/kernel", (self.size, self.size, self.inputs, self.outputs)


def blocks() -> list[list[Convolution]]:
    """Return the convolutions of Keras's MobileNetV2 (Sandler et al. 2018, table 2, width 1), block by block.

    A block's input is added to its output if both have the same shape.
    """
    found = [[Convolution("Conv1", "bn_Conv1", 3, 32, 3, 2, False, True)]]
    before, number = 32, 0
    for widening, width, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for place in range(count):
            name, wide = f"block_{number}" if number else "expanded_conv", widening * before
            block = [
                Convolution(f"{name}_expand", f"{name}_expand_BN", before, wide, 1, 1, False, True),
                Convolution(f"{name}_depthwise", f"{name}_depthwise_BN", wide, wide, 3, 1 if place else first, True, True),
                Convolution(f"{name}_project", f"{name}_project_BN", wide, width, 1, 1, False, False),
            ]
            found.append(block[widening == 1 :])
            before, number = width, number + 1
    return [*found, [Convolution("Conv_1", "Conv_1_bn", 320, 1280, 1, 1, False, True)]]


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the 266 tensors by its name."""
    found: dict[str, tuple[int, ...]] = {}
    for one in (one for block in blocks() for one in block):
        found[one.kernel[0]] = one.kernel[1]
        found |= {f"{one.norm}/{part}": (one.outputs,) for part in PARTS}
    for name, inputs, outputs in DENSE:
        found |= {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}
    return found


def is_converted(config: dict[str, Any]) -> bool:
    """Return whether a config.json is that of a folder of `convert_nsfwjs`, and not of transformers."""
    return config.get("format") == FORMAT


def check_converted(folder: Path, config: dict[str, Any]) -> None:
    """Raise RecipeError, whose message begins with "model", if a folder of `convert_nsfwjs` is not as it was written."""
    fix = "Convert the package again: python -m vlmdata.models.convert_nsfwjs"
    if config.get("resize") not in RESIZES:
        raise RecipeError(
            f"model: {folder / 'config.json'}: resize must be {' or '.join(RESIZES)}, not {shown(config.get('resize'))}"
        )
    ranges = config.get("quantization")
    if not isinstance(ranges, dict) or ranges.keys() != shapes().keys() or not all(map(_is_range, ranges.values())):
        raise RecipeError(f"model: {folder / 'config.json'}: quantization must hold [min, scale] for each tensor. {fix}")
    file = folder / WEIGHTS
    problem = weights_problem(file) if file.is_file() else "is missing"
    if problem:
        raise RecipeError(f"model: {file} {problem}. {fix}")


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(one, float | int) and not isinstance(one, bool) and math.isfinite(one) for one in value)
    )
