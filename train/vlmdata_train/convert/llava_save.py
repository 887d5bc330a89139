"""Saves a trained model with its processor in LLaVA's format, for transformers, vLLM and others."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
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
from vlmdata_train.convert.clip_weights import clip_config, clip_weights
from vlmdata_train.convert.llava_io import NAMES, RESAMPLE
from vlmdata_train.convert.served import generation_config, served_template, served_tokenizer
from vlmdata_train.encoders.hf_vision import HfVisionTower
from vlmdata_train.encoders.open_clip import OpenClipTower
from vlmdata_train.fusions.tokens import Tokens
from vlmdata_train.model.head import Head
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.positions.rope import Rope
from vlmdata_train.preprocessing.anyres import Anyres
from vlmdata_train.preprocessing.centre_crop import CentreCrop
from vlmdata_train.preprocessing.pad import Pad
from vlmdata_train.preprocessing.resize import Resize
from vlmdata_train.writings.plain import Plain


def save_llava(model: VisionLanguageModel, folder: Path) -> None:
    """Write a model and its processor in transformers' format.

    Raise a ValueError that names the first part that does not fit LLaVA's format. Merge LoRA first, with `lora.merge_lora`.
    """
    _check_form(model)
    vision_config, weights = _tower(model.encoder)
    rest = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    weights = {f"model.vision_tower.{name}": value for name, value in weights.items()}
    weights |= {their_name(name): value for name, value in rest.items()}
    weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    anyres = isinstance(model.plan.preprocessing, Anyres)
    config = _config(model, vision_config, LlavaNextConfig if anyres else LlavaConfig)
    with torch.device("meta"):
        reference = (LlavaNextForConditionalGeneration if anyres else LlavaForConditionalGeneration)(config)
    reference.load_state_dict(weights, assign=True)
    reference.generation_config = generation_config(model)
    folder.mkdir(parents=True, exist_ok=True)
    reference.save_pretrained(folder)
    _processor(model, config).save_pretrained(folder)


def _check_form(model: VisionLanguageModel) -> None:
    plan, encoder = model.plan, model.encoder
    if isinstance(encoder, OpenClipTower):
        try:
            clip_config(encoder.visual)
        except ValueError as error:
            raise ValueError(f"encoder: {error}. This model cannot be saved in LLaVA's format") from None
    is_tower = isinstance(encoder, OpenClipTower) or (
        isinstance(encoder, HfVisionTower) and encoder.extra <= 1 and not encoder.interpolate
    )
    forms = {
        "encoder": (
            is_tower and not encoder.norm,
            "an hf_vision or open_clip tower at its own image size, without norm and register tokens",
        ),
        "preprocessing": (
            isinstance(plan.preprocessing, Pad | CentreCrop | Resize)
            or (isinstance(plan.preprocessing, Anyres) and plan.preprocessing.max_tiles is None),
            "pad, centre_crop, resize or anyres without max_tiles",
        ),
        "abstractor": (
            type(plan.abstractor) is Mlp and plan.abstractor.layers == 2  # a subclass also merges patches
            and not (plan.abstractor.norm or plan.abstractor.norm_after),
            "an mlp of 2 layers without norms",
        ),
        "fusion": (isinstance(plan.fusion, Tokens) and not plan.fusion.prefix, "tokens, without prefix"),
        "positions": (isinstance(model.positions, Rope), "rope"),
        "writing": (isinstance(plan.writing, Plain) and plan.writing.bos == "first", "plain, with BOS first"),
        "language": (
            model.head == Head() and model.lm_head.bias is None, "an output layer without bias, scale and cap"
        ),
    }  # fmt: skip
    for part, (is_llava, form) in forms.items():
        if not is_llava:
            raise ValueError(f"{part}: LLaVA's format supports only {form}. This model cannot be saved in LLaVA's format")
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ValueError("merge the LoRA updates first, with vlmdata_train.model.lora.merge_lora(model)")


def _tower(encoder: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the tower's configuration in transformers, and the tower's weights by their names in transformers."""
    if isinstance(encoder, OpenClipTower):
        return clip_config(encoder.visual), clip_weights(encoder.visual)
    return encoder.model.config, encoder.model.state_dict()


def _config(model: VisionLanguageModel, vision: Any, kind: type) -> Any:
    encoder, plan = model.encoder, model.plan
    side, count = plan.facts.image_size, vision.num_hidden_layers
    if isinstance(encoder, OpenClipTower):  # the tower's `indices` count blocks from 0
        layers = [index if index < 0 else index - count for index in encoder.indices]
    else:
        layers = [layer - count - 1 for layer in encoder.layers]
    options: dict[str, Any] = {}
    if isinstance(plan.preprocessing, Anyres):
        options["image_grid_pinpoints"] = [[rows * side, columns * side] for rows, columns in plan.preprocessing.tiles]
    text = copy.deepcopy(model.language.config)
    text.architectures = [type(model.language).__name__]  # vLLM reads the class of the language model here
    return kind(
        vision_config=vision, text_config=text,
        image_token_index=model.image_token_id, image_seq_length=plan.grid_of(side, side).tokens,
        vision_feature_layer=layers[0] if len(layers) == 1 else layers,
        vision_feature_select_strategy="default" if _drops_class_token(encoder) else "full",
        projector_hidden_act=plan.abstractor.activation, multimodal_projector_bias=plan.abstractor.bias,
        tie_word_embeddings=model.language.config.tie_word_embeddings, dtype=next(model.parameters()).dtype, **options,
    )  # fmt: skip


def _drops_class_token(encoder: Any) -> bool:
    return encoder.tokens == "patches" if isinstance(encoder, OpenClipTower) else encoder.extra == 1


def _processor(model: VisionLanguageModel, config: Any) -> Any:
    plan, side = model.plan, model.plan.facts.image_size
    square = {"height": side, "width": side}
    common: dict[str, Any] = {
        "image_mean": list(plan.facts.mean), "image_std": list(plan.facts.std), "crop_size": square,
        "size": {"shortest_edge": side}, "resample": RESAMPLE[plan.preprocessing.resample],
    }  # fmt: skip
    if isinstance(plan.preprocessing, Anyres):
        images: Any = LlavaNextImageProcessor(**common, image_grid_pinpoints=config.image_grid_pinpoints)
    elif isinstance(plan.preprocessing, Pad):
        images = LlavaImageProcessor(**common, do_pad=True)
    elif isinstance(plan.preprocessing, Resize):
        images = CLIPImageProcessor(**{**common, "size": square}, do_center_crop=False)
    else:
        images = CLIPImageProcessor(**common)
    # The processor counts one token fewer if the class token is dropped, so count the class token here.
    has_class_token = _drops_class_token(model.encoder) or plan.facts.extra > 0
    options = {"patch_size": plan.facts.patch_size, "num_additional_image_tokens": int(has_class_token)}
    return (LlavaNextProcessor if isinstance(plan.preprocessing, Anyres) else LlavaProcessor)(
        image_processor=images, tokenizer=served_tokenizer(model.tokenizer, model.image_token), image_token=model.image_token,
        **options, vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=served_template(model.tokenizer, model.image_token),
    )  # fmt: skip


def their_name(name: str) -> str:
    """Return the name that transformers' LLaVA gives to one of our weights. Raise ValueError if LLaVA has no such weight."""
    for theirs, ours in NAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"a LLaVA model has no weight for '{name}'")
