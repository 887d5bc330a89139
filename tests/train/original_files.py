"""Write weights as the authors of published models do, and compare and train such models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig

from tests.train.parity import differences
from tests.train.runs import write_data
from tests.train.test_published import TOLERANCE, batch_of, served
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.recipe_file import load


def save_weights(tensors: Mapping[str, Tensor], folder: Path, suffix: str, *, files: int) -> None:
    """Write tensors to several files with an index: `bin` as torch saves them, or `safetensors`."""
    folder.mkdir(parents=True)
    table = {}
    whole = "pytorch_model" if suffix == "bin" else "model"
    for number in range(files):
        file = f"{whole}-{number + 1:05d}-of-{files:05d}.{suffix}"
        part = {name: tensors[name].clone().contiguous() for name in sorted(tensors)[number::files]}
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file)
        table |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": table}
    (folder / f"{whole}.{suffix}.index.json").write_text(json.dumps(index))


def assert_same_logits(ours: VisionLanguageModel, folder: Path, *, images: int, rows: int) -> None:
    """Compare ids and the first `rows` logits with those of transformers' model in a folder."""
    theirs, inputs = served(folder, images)
    batch = batch_of(ours, images)
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    with torch.no_grad():
        logits, own = theirs(**inputs).logits, ours.logits(batch)
    assert rows <= own.shape[-1]
    assert (own[..., :rows] - logits[..., :rows]).abs().max() < TOLERANCE * logits.abs().max()


def assert_same_settings(ours: VisionLanguageModel, folder: Path) -> None:
    """Compare the configurations of the tower and of the language model with those of transformers' model in a folder."""
    config = AutoConfig.from_pretrained(folder)
    pairs = [(ours.encoder.model.config, config.vision_config), (ours.language.config, config.text_config)]
    assert [dict(differences(own.to_dict(), theirs.to_dict())) for own, theirs in pairs] == [{}, {}]


def trained(start: Path, folder: Path, **more: Any) -> Path:
    """Train for two steps and return the checkpoint."""
    data = write_data(folder / "data", captions=0, conversations=12)
    recipe = load("instruct", overrides={
        "start": str(start), "data": data, "out": str(folder / "run"), "epochs": None, "steps": 2, "speed": {"device": "cpu"},
        "batches": {"tokens": 1024, "sample_tokens": 512}, "lr": 1e-2, "held_out": {}, "logs.tensorboard": False, **more,
    })  # fmt: skip
    checkpoint = run_training(recipe).checkpoint
    assert checkpoint is not None
    return checkpoint
