"""Tiny models and batches for the tests of the trainer's models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.batch import Batch
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
TOWER = {"width": 32, "layers": 3, "head_width": 16, "patch_size": 8, "image_size": 32}
TINY = ModelRecipe(encoder={"open_clip": {"config": TOWER}}, language={"hf_causal": {"config": LLAMA}})


def randomise(model: nn.Module, seed: int = 0, scale: float = 0.2) -> None:
    """Draw every weight at random, because gates and queries that start at zero would hide the images from a comparison."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def tiny_model(recipe: ModelRecipe = TINY, seed: int = 0) -> VisionLanguageModel:
    """Build a model and draw all its weights at random."""
    model = build_model(recipe).eval()
    randomise(model, seed)
    return model


def sample(model: VisionLanguageModel, length: int, images: int, seed: int) -> tuple[list[int], Tensor]:
    """Return `length` random text tokens with images among them, and the images' pixels (tiles, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    side = model.plan.facts.image_size
    ids = torch.randint(0, 200, (length,), generator=generator).tolist()
    image = [model.fusion.image_token_id] * model.tokens_of(side, side)
    for number in range(images):
        place = 1 + number * (len(image) + 2)
        ids[place:place] = image
    return ids, torch.randint(0, 256, (images, 3, side, side), generator=generator, dtype=torch.uint8)


def pack(model: VisionLanguageModel, samples: Sequence[tuple[list[int], Tensor]], padding: int = 0) -> Batch:
    """Pack samples into one row, as the loader does. If the model reads questions, each sample has one of random tokens."""
    ids = [number for tokens, _ in samples for number in tokens] + [0] * padding
    positions = [place for tokens, _ in samples for place in range(len(tokens))] + [0] * padding
    segments = [number for number, (tokens, _) in enumerate(samples, 1) for _ in tokens] + [0] * padding
    batch = rows(model, [ids], [positions], [segments], torch.cat([pixels for _, pixels in samples]))
    of_sample = [number for number, (_, pixels) in enumerate(samples) for _ in pixels]
    length = 4 if model.question_ids else 0
    questions = torch.randint(0, 200, (len(samples), length), generator=torch.Generator().manual_seed(len(ids)))
    return replace(batch, of_sample=torch.tensor(of_sample, dtype=torch.int64), questions=questions)


def rows(
    model: VisionLanguageModel, ids: list[list[int]], positions: list[list[int]], segments: list[list[int]], pixels: Tensor
) -> Batch:
    """Make a batch of rows of equal length whose images have one tile each."""
    images, side = len(pixels), model.plan.facts.image_size
    tokens = torch.tensor(ids)
    return Batch(
        input_ids=tokens, labels=tokens.clone(), position_ids=torch.tensor(positions),
        segment_ids=torch.tensor(segments, dtype=torch.int32), pixels=pixels,
        image_token_counts=torch.full((images,), model.tokens_of(side, side)),
        grids=torch.zeros(images, 3, dtype=torch.int64), tile_counts=torch.ones(images, dtype=torch.int64),
        image_sizes=torch.full((images, 2), side), sources=[], keys=[], **of_images([0] * images, images),
    )  # fmt: skip


def of_images(of_sample: Sequence[int], tiles: int) -> dict[str, Tensor]:
    """Return the fields of a batch for images, not videos, of these samples, without questions."""
    return {
        "of_sample": torch.tensor(of_sample, dtype=torch.int64), "is_video": torch.zeros(len(of_sample), dtype=torch.bool),
        "times": torch.zeros(tiles), "intervals": torch.zeros(len(of_sample)),
        "questions": torch.zeros(max(of_sample, default=0) + 1, 0, dtype=torch.int64),
    }  # fmt: skip


@dataclass(frozen=True)
class MeanColours:
    """A tower for images of any size whose features are the weighted mean colour of every patch of 8 pixels."""

    def facts(self) -> EncoderFacts:
        """Return the facts of a tower with three channels per patch."""
        return EncoderFacts(width=3, image_size=16, patch_size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def build(self) -> nn.Module:
        """Return the module, which has one weight."""

        class Tower(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(3))

            def forward(self, pixels: Tensor) -> Tensor:
                return functional.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2) * self.scale

        return Tower()


@dataclass(frozen=True)
class NoWhite(MeanColours):
    """A tower like MeanColours that returns NaN for a picture that is all white."""

    def build(self) -> nn.Module:
        """Return the module."""

        class Breaks(nn.Module):
            def __init__(self, tower: nn.Module) -> None:
                super().__init__()
                self.tower = tower

            def forward(self, pixels: Tensor) -> Tensor:
                is_white = (pixels > 0.99).flatten(1).all(1)
                return torch.where(is_white[:, None, None], torch.nan, self.tower(pixels))

        return Breaks(super().build())
