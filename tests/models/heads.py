"""Classifier heads of the published layouts with random weights, each built in torch without vlmdata."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from vlmdata.models.head_description import SHIPPED

RELU, OUT = nn.ReLU, nn.Dropout


class Standardised(nn.Module):
    """A Keras head of LAION: (x - mean) / sqrt(variance), dense layers with ReLU between them, a sigmoid."""

    def __init__(self, *widths: int):
        super().__init__()
        self.mean = nn.Parameter(torch.randn(widths[0]) * 0.05)
        self.variance = nn.Parameter(torch.rand(widths[0]) * 0.01 + 0.001)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.variance.sqrt()
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x).sigmoid()


class Layered(nn.Module):
    """A head whose tensors are called `layers.N.weight`, as LAION's aesthetic head has them."""

    def __init__(self, *layers: nn.Module, unit: bool = True):
        super().__init__()
        self.layers, self.unit = nn.Sequential(*layers), unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(nn.functional.normalize(x, dim=-1) if self.unit else x)


class Watermark(nn.Module):
    """The classifier of LAION's watermark model; the published file also has the layers of an EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Sequential(nn.Linear(1536, 625), RELU(), OUT(0.3), nn.Linear(625, 256), RELU(), nn.Linear(256, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(x).softmax(-1)


def _linear(a: int, b: int) -> list[nn.Module]:
    return [nn.Linear(a, b), RELU(), OUT(0.2)]


class Affine(nn.Linear):
    """A head that is one linear layer, with the tensors `weight` and `bias`, on a unit vector."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.normalize(x, dim=-1))


PUBLISHED: dict[str, Any] = {
    "laion_aesthetic_v1_b32": lambda: Affine(512, 1),
    "laion_aesthetic_v1_l14": lambda: Affine(768, 1),
    "laion_aesthetic_v2_l14": lambda: Layered(
        nn.Linear(768, 1024), OUT(0.2), nn.Linear(1024, 128), OUT(0.2), nn.Linear(128, 64), OUT(0.1), nn.Linear(64, 16),
        nn.Linear(16, 1),
    ),
    "laion_nsfw_b32": lambda: Standardised(512, 32, 32, 1),
    "laion_nsfw_h14": lambda: Layered(
        *_linear(1024, 1024), *_linear(1024, 2048), *_linear(2048, 1024), *_linear(1024, 256), *_linear(256, 128),
        nn.Linear(128, 16), nn.Linear(16, 1),
    ),
    "laion_nsfw_l14": lambda: Standardised(768, 64, 512, 256, 1),
    "laion_watermark": Watermark,
}  # fmt: skip


def published(name: str) -> nn.Module:
    """Return a head of a published layout with random weights, whose scores differ between vectors."""
    torch.manual_seed(7)
    head = PUBLISHED[name]().eval()
    with torch.no_grad():
        for layer in head.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)
    return head


def without_pairs(name: str, folder: Path) -> str:
    """Write the shipped description without what holds only for the published weights, and return its path."""
    tree = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in tree.items() if key not in ("pairs", "weights")}, sort_keys=False)
    )
    return str(path)


def vectors(width: int, count: int = 40) -> np.ndarray:
    """Return unit vectors as clip_score stores them: float32 (count, width), with the precision of fp16."""
    found = np.random.default_rng(5).normal(size=(count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
