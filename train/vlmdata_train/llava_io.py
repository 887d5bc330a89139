"""Models in LLaVA's form, to and from transformers: published checkpoints load, trained ones are served elsewhere.

LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision as transformers writes them (`LlavaForConditionalGeneration` and its kin).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
)

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.encoders.hf_vision import Tower
from vlmdata_train.fusions.tokens import Tokens
from vlmdata_train.model import ModelRecipe, VisionLanguageModel, build_model
from vlmdata_train.preprocessing.anyres import Anyres
from vlmdata_train.preprocessing.centre_crop import CentreCrop
from vlmdata_train.preprocessing.pad import Pad
from vlmdata_train.tokens import IMAGE

NAMES = (  # theirs, ours
    ("model.vision_tower.", "encoder.model."),
    ("model.multi_modal_projector.linear_1.", "abstractor.0."),
    ("model.multi_modal_projector.linear_2.", "abstractor.2."),
    ("model.image_newline", "arrangement.newline"),
    ("model.language_model.", "language.model."),
    ("lm_head.", "language.lm_head."),
)
FORMS = ("llava", "llava_next", "llava_onevision")


def our_name(name: str) -> str:
    """Rename a weight of transformers' LLaVA to ours."""
    for theirs, ours in NAMES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise ValueError(f"a LLaVA model has no weight '{name}'")


def their_name(name: str) -> str:
    """Rename one of our weights to transformers' LLaVA."""
    for theirs, ours in NAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"'{name}' has no place in a LLaVA model")


def llava_recipe(name: str) -> ModelRecipe:
    """Return the parts of a published model by its hub name or folder; the weights are `load_llava`'s to fill."""
    config = AutoConfig.from_pretrained(name)
    if config.model_type not in FORMS:
        raise ValueError(f"{name} is a {config.model_type} model; in LLaVA's form are {', '.join(FORMS)}")
    images = AutoImageProcessor.from_pretrained(name)
    vision = {
        "config": _plain(config.vision_config), "layer": config.vision_feature_layer,
        "tokens": "patches" if config.vision_feature_select_strategy == "default" else "all",
        "mean": images.image_mean, "std": images.image_std,
    }  # fmt: skip
    if config.vision_config.model_type == "siglip_vision_model":
        vision["tokens"] = "patches"  # it has no class token, so `full` and patches are the same
    return ModelRecipe(
        encoder={"hf_vision": vision},
        preprocessing=_preprocessing(config, images),
        abstractor={"mlp": {"activation": config.projector_hidden_act, "bias": config.multimodal_projector_bias}},
        language={"hf_causal": {"config": _plain(config.text_config), "tokenizer": name}},
    )


def load_llava(name: str) -> VisionLanguageModel:
    """Load a published model, in fp32."""
    model = build_model(llava_recipe(name))
    fill_from_llava(model, name)
    return model


def fill_from_llava(model: VisionLanguageModel, name: str) -> None:
    """Put a published model's weights into one with its parts. Its image token must be `<image>`, as in all of LLaVA's."""
    config = AutoConfig.from_pretrained(name)
    if model.tokenizer.get_vocab()[IMAGE] != config.image_token_id:
        raise ValueError(f"{name}: the image token is {config.image_token_id} in the model, another in the tokenizer")
    reference = AutoModelForImageTextToText.from_pretrained(name, dtype=next(model.parameters()).dtype)
    model.load_state_dict({our_name(key): value for key, value in reference.state_dict().items()})


def save_llava(model: VisionLanguageModel, folder: Path) -> None:
    """Write a model and its processor as transformers reads them. ValueError names the part that LLaVA does not have.

    LoRA must be merged before: `lora.merge_lora`.
    """
    _check_form(model)
    weights = {their_name(name): value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    anyres = isinstance(model.plan.preprocessing, Anyres)
    config = _config(model, LlavaNextConfig if anyres else LlavaConfig)
    with torch.device("meta"):
        reference = (LlavaNextForConditionalGeneration if anyres else LlavaForConditionalGeneration)(config)
    reference.load_state_dict(weights, assign=True)
    reference.generation_config = model.language.generation_config
    folder.mkdir(parents=True, exist_ok=True)
    reference.save_pretrained(folder)
    _processor(model, config).save_pretrained(folder)


def _check_form(model: VisionLanguageModel) -> None:
    plan = model.plan
    wants = {
        "encoder": (isinstance(model.encoder, Tower) and not model.encoder.norm, "an hf_vision tower without norm"),
        "preprocessing": (isinstance(plan.preprocessing, Pad | CentreCrop | Anyres), "pad, centre_crop or anyres"),
        "abstractor": (
            isinstance(plan.abstractor, Mlp) and plan.abstractor.layers == 2 and not plan.abstractor.norm,
            "an mlp of 2 layers without norm",
        ),
        "fusion": (isinstance(plan.fusion, Tokens), "tokens"),
    }
    for part, (is_llava, form) in wants.items():
        if not is_llava:
            raise ValueError(f"{part}: LLaVA's form has {form}; this model cannot be saved as one")
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ValueError("merge the LoRA updates first: vlmdata_train.lora.merge_lora(model)")


def _config(model: VisionLanguageModel, kind: type) -> Any:
    encoder, plan = model.encoder, model.plan
    side = plan.facts.image_size
    layers = [layer - encoder.model.config.num_hidden_layers - 1 for layer in encoder.layers]  # from the end
    options: dict[str, Any] = {}
    if isinstance(plan.preprocessing, Anyres):
        options["image_grid_pinpoints"] = [[rows * side, columns * side] for rows, columns in plan.preprocessing.tiles]
    return kind(
        vision_config=encoder.model.config, text_config=model.language.config,
        image_token_index=model.tokenizer.get_vocab()[IMAGE], image_seq_length=plan.grid_of(side, side).tokens,
        vision_feature_layer=layers[0] if len(layers) == 1 else layers,
        vision_feature_select_strategy="default" if encoder.extra else "full",
        projector_hidden_act=plan.abstractor.activation, multimodal_projector_bias=plan.abstractor.bias,
        tie_word_embeddings=model.language.config.tie_word_embeddings, dtype=next(model.parameters()).dtype, **options,
    )  # fmt: skip


def _processor(model: VisionLanguageModel, config: Any) -> Any:
    plan, side = model.plan, model.plan.facts.image_size
    square = {"height": side, "width": side}
    common: dict[str, Any] = {
        "image_mean": list(plan.facts.mean), "image_std": list(plan.facts.std), "crop_size": square,
        "size": {"shortest_edge": side},
    }  # fmt: skip
    if isinstance(plan.preprocessing, Anyres):
        images: Any = LlavaNextImageProcessor(**common, image_grid_pinpoints=config.image_grid_pinpoints)
    elif isinstance(plan.preprocessing, Pad):
        images = LlavaImageProcessor(**common, do_pad=True)
    else:
        images = CLIPImageProcessor(**common)
    # the processor takes one from its count for a class token that is dropped
    options = {"patch_size": plan.facts.patch_size, "num_additional_image_tokens": int(bool(model.encoder.extra))}
    return (LlavaNextProcessor if isinstance(plan.preprocessing, Anyres) else LlavaProcessor)(
        image_processor=images, tokenizer=model.tokenizer, image_token=IMAGE, **options,
        vision_feature_select_strategy=config.vision_feature_select_strategy, chat_template=model.tokenizer.chat_template,
    )  # fmt: skip


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration as the mapping that a recipe holds, without what transformers notes about the file."""
    return {
        name: value for name, value in config.to_dict().items()
        if not name.startswith("_") and name not in ("transformers_version", "architectures", "dtype") and value is not None
    }  # fmt: skip


def _preprocessing(config: Any, images: Any) -> Any:
    if config.model_type == "llava":
        return "pad" if getattr(images, "do_pad", False) else "centre_crop"
    side = config.vision_config.image_size
    tiles = tuple((rows // side, columns // side) for rows, columns in config.image_grid_pinpoints)
    most = re.fullmatch(r"anyres_max_(\d+)", getattr(config, "vision_aspect_ratio", ""))
    return {"anyres": {"tiles": tiles, "max_tiles": int(most[1]) if most else None}}
