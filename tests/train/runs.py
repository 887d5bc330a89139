"""Training runs small enough for tests: a model of a few thousand weights on drawings of 32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from bench.inputs.tars import write_tar
from tests.train.shards import caption_samples, conversation_samples
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.setup import make_model
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.recipe import Recipe
from vlmdata_train.recipe_file import parse

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
TOWER = {"width": 32, "layers": 2, "head_width": 16, "patch_size": 16, "image_size": 32}
MODEL = {"encoder": {"open_clip": {"config": TOWER, "layer": -1}}, "language": {"hf_causal": {"config": LLAMA}}}


def write_data(folder: Path, *, captions: int = 64, conversations: int = 0, tars: int = 2) -> str:
    """Write a dataset of drawings in `tars` tars and return its path."""
    samples = [*caption_samples(captions), *conversation_samples(conversations)]
    for i in range(tars):
        write_tar(folder / f"{i:05d}.tar", samples[i::tars])
    return str(folder)


def tiny_recipe(data: str, out: Path, **changes: Any) -> Recipe:
    """Return a recipe of six steps. `changes` replace whole entries."""
    tree: dict[str, Any] = {
        "stage": "instruct", "model": MODEL, "data": data, "out": str(out), "steps": 6, "lr": 1e-2,
        "batches": {"tokens": 192, "sample_tokens": 96},
        "checkpoints": {"every": 3, "keep": 9}, "logs": {"every": 2, "tensorboard": False},
    }  # fmt: skip
    return parse({**tree, **changes})


def made_model(recipe: Recipe, parts: ModelRecipe, ranks: Ranks) -> VisionLanguageModel:
    """Return a run's model with its weights."""
    model, read = make_model(recipe, parts, ranks)
    read()
    return model


def weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint's model by name."""
    tensors: dict[str, Tensor] = {}
    for file in sorted([*checkpoint.glob("model-*.safetensors"), *checkpoint.glob("frozen-*.safetensors")]):
        tensors |= load_file(file)
    return tensors
