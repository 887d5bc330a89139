"""Save a trained model with its processor in the format of a family of transformers, for transformers, vLLM and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmdata_train.convert.family import Family, all_families
from vlmdata_train.convert.served import generation_config
from vlmdata_train.model.model import VisionLanguageModel


def save_published(model: VisionLanguageModel, folder: Path, *, max_shard_size: str = "5GB") -> None:
    """Write a model, its processor and its settings of generation. Merge LoRA first, with `lora.merge_lora`.

    The weights are divided into safetensors files of at most `max_shard_size`.

    Raises ValueError, before anything is written, if no family's format can hold the model, or if its processor needs a package
    that is not installed. The error names the first part that does not fit the nearest format.
    """
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ValueError("merge the LoRA updates first, with vlmdata_train.model.lora.merge_lora(model)")
    family = format_of(model)
    processor = family.processor(model)
    reference = family.their_model(model)
    reference.generation_config = generation_config(model)
    folder.mkdir(parents=True, exist_ok=True)
    family.save(reference, folder, max_shard_size=max_shard_size)
    save_processor(processor, folder)


def save_processor(processor: Any, folder: Path) -> None:
    """Write a processor of transformers with its tokenizer."""
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)  # `preprocessor_config.json`, which vLLM and older programs read


def format_of(model: VisionLanguageModel) -> Family:
    """Return the family whose format can hold a model. Raises ValueError if there is none.

    The error is that of the nearest family: the one with the fewest parts that do not fit, and among these one with the tower.
    """
    best, fewest = "", None
    for family in (each for each in all_families() if each.is_written):
        misfits = list(family.misfits(model))
        if not misfits:
            return family
        distance = (len(misfits), any(part == "encoder" for part, _ in misfits))
        if fewest is None or distance < fewest:
            fewest, (part, supported) = distance, misfits[0]
            best = f"{part}: {family.title}'s format supports only {supported}"
    raise ValueError(f"{best}. No format of a published family can hold this model")
