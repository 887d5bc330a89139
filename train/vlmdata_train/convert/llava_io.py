"""Reads the parts and the weights of published models in LLaVA's format.

These models are LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision as transformers saves them (`LlavaForConditionalGeneration` and
similar classes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText

from vlmdata_train.model.head import Head
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.quiet import quiet
from vlmdata_train.model.special_ids import drop_foreign_ids

NAMES = (  # (transformers' prefix, our prefix)
    ("model.vision_tower.", "encoder.model."),
    ("model.multi_modal_projector.linear_1.", "abstractor.0."),
    ("model.multi_modal_projector.linear_2.", "abstractor.2."),
    ("model.image_newline", "arrangement.newline"),
    ("model.language_model.", "language.model."),
    ("lm_head.", "language.lm_head."),
)
FORMS = ("llava", "llava_next", "llava_onevision")
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # our name of a filter -> Pillow's number


def our_name(name: str) -> str:
    """Return the name that our model gives to a weight of transformers' LLaVA. Raise ValueError for an unknown weight."""
    for theirs, ours in NAMES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise ValueError(f"a LLaVA model has no weight '{name}'")


def llava_recipe(name: str) -> ModelRecipe:
    """Return the recipe of a published model by its hub name or folder. `fill_from_llava` loads the weights.

    Raise ValueError if the model is not in LLaVA's format, and OSError if there is no such model.
    """
    config = _config(name)
    if config.model_type not in FORMS:
        raise ValueError(
            f"{name} is a {config.model_type} model, but only models in LLaVA's format can be loaded: {', '.join(FORMS)}"
        )
    if config.vision_config.model_type == "pixtral":
        raise ValueError(f"{name} has Pixtral's tower. Such a model can be trained, but its published weights cannot be loaded")
    images = AutoImageProcessor.from_pretrained(name)
    vision = {
        "config": _plain(config.vision_config), "layer": config.vision_feature_layer,
        "tokens": "patches" if config.vision_feature_select_strategy == "default" else "all",
        "mean": images.image_mean, "std": images.image_std,
    }  # fmt: skip
    if config.vision_config.model_type == "siglip_vision_model":
        vision["tokens"] = "patches"  # without a class token, `full` and `patches` are the same
    return ModelRecipe(
        encoder={"hf_vision": vision},
        preprocessing=_preprocessing(config, images),
        abstractor={"mlp": {"activation": config.projector_hidden_act, "bias": config.multimodal_projector_bias}},
        language={"hf_causal": {"config": _plain(config.text_config), "tokenizer": name}},
    )


def fill_from_llava(model: VisionLanguageModel, name: str) -> None:
    """Load the weights of the published model `name` into `model`.

    Raise ValueError if the image token of `model` differs from the published one, if `model` changes its logits by a bias,
    scale or cap, or if a weight does not fit.
    """
    config = _config(name)
    image_id = model.image_token_id
    if image_id != config.image_token_id:
        raise ValueError(
            f"{name}: the image token has the id {config.image_token_id} in the model, but {image_id} in the tokenizer"
        )
    if model.head != Head() or model.lm_head.bias is not None:
        kind = type(model.language).__name__
        raise ValueError(f"{name}: LLaVA's format has no bias, scale or cap for logits, but {kind} uses one of them")
    reference = AutoModelForImageTextToText.from_pretrained(name, config=config, dtype=next(model.parameters()).dtype)
    weights = {our_name(key): value for key, value in reference.state_dict().items()}
    misfits = _misfits(weights, model.state_dict())
    if misfits:
        raise ValueError(
            f"{name}: the weights of this model do not fit the recipe's model (the first is '{misfits[0]}')."
            " Omit `model` in the recipe"
        )
    model.load_state_dict(weights)


def _misfits(published: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """Return the names of weights that only one of two models has.

    If both have the same names, return the names of weights whose shapes differ.
    """
    only_in_one = sorted(published.keys() ^ ours.keys())
    return only_in_one or [name for name in ours if ours[name].shape != published[name].shape]


def _config(name: str) -> Any:
    with quiet():  # transformers would warn about the ids that are dropped below
        config = AutoConfig.from_pretrained(name)
    drop_foreign_ids(config)
    return config


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration as a mapping for a recipe, without transformers' metadata."""
    return {
        name: value for name, value in config.to_dict().items()
        if not name.startswith("_") and name not in ("transformers_version", "architectures", "dtype") and value is not None
    }  # fmt: skip


def _preprocessing(config: Any, images: Any) -> Any:
    resample = {number: name for name, number in RESAMPLE.items()}[int(images.resample)]
    if config.model_type == "llava":
        whole = "centre_crop" if getattr(images, "do_center_crop", False) else "resize"
        return {"pad" if getattr(images, "do_pad", False) else whole: {"resample": resample}}
    side = config.vision_config.image_size
    tiles = tuple((rows // side, columns // side) for rows, columns in config.image_grid_pinpoints)
    limit = re.fullmatch(r"anyres_max_(\d+)", getattr(config, "vision_aspect_ratio", ""))
    several = {"several": "pad"} if config.model_type == "llava_onevision" else {}
    return {"anyres": {"tiles": tiles, "max_tiles": int(limit[1]) if limit else None, "resample": resample, **several}}
