"""LLaVA's original format, as `liuhaotian/llava-v1.5-7b` has it. LLaVA's code calls the classes `LlavaLlamaForCausalLM` etc."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from vlmdata_train.convert.original import Original, check_files, language_entry
from vlmdata_train.convert.original_tower import tower_config, tower_of, tower_weights
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import IMAGE, load_tokenizer

LANGUAGES = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}
TOKENS = {"patch": "patches", "cls_patch": "all"}
# Vicuna's prompt (`vicuna_v1` in LLaVA's code), with which LLaVA was trained. Vicuna's tokenizer has no chat template.
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = 'A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user\\'s questions.' %}{% set turns = messages %}{% endif %}"
    "{{ system + ' ' }}{% for m in turns %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}{% else %}"
    "{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class LlavaOriginal(Original):
    """A CLIP, an MLP or a linear layer, and a Llama, Mistral or Qwen2."""

    title = "LLaVA (original format)"
    forms: ClassVar[tuple[str, ...]] = tuple(LANGUAGES)
    names: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model.vision_tower.vision_tower.vision_model.", "encoder.model."),
        ("model.mm_projector.", "abstractor."),
        ("model.image_newline", "arrangement.newline"),
        ("model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a model has this format. transformers' LLaVA also has the type `llava`, but no `mm_vision_tower`."""
        return super().takes(facts) and (facts["model_type"] != "llava" or "mm_vision_tower" in facts)

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError that names a part which does not fit, or if the tower is missing."""
        facts = start.facts
        if facts.get("mm_use_im_start_end"):
            raise ValueError(f"writing: {start.name} has tokens around images (mm_use_im_start_end), which are not supported")
        tower = tower_of(start)
        check_files(start)
        has_tower = any(name.startswith(self.names[0][0]) for name in start.places)
        if Path(tower.name).is_dir() and not has_tower:
            check_files(tower)
        kind, tokenizer = LANGUAGES[facts["model_type"]], load_tokenizer(start.name, image=IMAGE)
        template = VICUNA if kind == "llama" and tokenizer.chat_template is None else None
        return ModelRecipe(
            encoder={"hf_vision": _encoder(start, tower)},
            preprocessing=_preprocessing(start, tower),
            abstractor=_abstractor(start),
            writing={"plain": {"image_token": IMAGE}},
            language=language_entry(start, kind, facts, tokenizer, chat_template=template),
        )  # fmt: skip

    def read(self, start: Published) -> Iterator[tuple[str, str | None, Tensor]]:
        """Yield each weight of the model, then those of the tower if the model's files do not have them."""
        has_tower = False
        for theirs, tensor in start.weights():
            ours = self.our_name(theirs)
            has_tower |= (ours or "").startswith("encoder.")
            yield theirs, ours, tensor
        if not has_tower:
            yield from tower_weights(tower_of(start))


def _encoder(start: Published, tower: Published) -> dict[str, Any]:
    """Return the parameters of `hf_vision`. Raises ValueError for a tower that LLaVA's code does not use in this way."""
    facts, config = start.facts, tower_config(tower)
    layer, feature = facts.get("mm_vision_select_layer"), facts.get("mm_vision_select_feature", "patch")
    if facts.get("s2"):
        raise ValueError(f"encoder: {start.name} reads images at several scales (s2), which is not supported")
    if not isinstance(layer, int) or feature not in TOKENS:
        raise ValueError(
            f"encoder: {start.name} has the layer {layer!r} and the features {feature!r}, but `mm_vision_select_layer` must be"
            f" a number and `mm_vision_select_feature` one of {', '.join(TOKENS)}"
        )
    if (width := facts.get("mm_hidden_size", config.hidden_size)) != config.hidden_size:
        raise ValueError(
            f"encoder: {start.name} needs features of width {width}, but its tower {tower.name} has the width"
            f" {config.hidden_size}"
        )
    mean, std = tower.images.image_mean, tower.images.image_std
    return {"config": plain_config(config), "layer": layer, "tokens": TOKENS[feature], "mean": mean, "std": std}


def _abstractor(start: Published) -> Any:
    """Return the recipe's abstractor. Raises ValueError for a projector that is neither linear nor an MLP."""
    kind = str(start.facts.get("mm_projector_type", "linear"))
    if kind == "linear":
        return "linear"
    found = re.fullmatch(r"mlp(\d{1,2})x_gelu", kind)
    if found is None:
        raise ValueError(f"abstractor: {start.name} has the projector '{kind}', but only linear and mlp2x_gelu can be loaded")
    return {"mlp": {"layers": int(found[1])}}


def _preprocessing(start: Published, tower: Published) -> Any:
    """Return the recipe's preprocessing. Raises ValueError for a way to arrange tiles that the trainer does not have."""
    facts, images = start.facts, tower.images
    ratio, merge = facts.get("image_aspect_ratio") or "square", facts.get("mm_patch_merge_type") or "flat"
    if (ratio, merge) == ("anyres", "spatial_unpad"):
        return {"anyres": {"tiles": _tiles(start, tower_config(tower).image_size)}}
    if ratio not in ("square", "pad") or merge != "flat":
        raise ValueError(
            f"preprocessing: {start.name} has image_aspect_ratio '{ratio}' with mm_patch_merge_type '{merge}', but only square"
            " and pad with flat, and anyres with spatial_unpad can be loaded"
        )
    whole = "centre_crop" if getattr(images, "do_center_crop", False) else "resize"
    return {"pad" if ratio == "pad" else whole: {"resample": FILTERS[int(images.resample)]}}


def _tiles(start: Published, side: int) -> tuple[tuple[int, int], ...]:
    """Return the (rows, columns) of each grid of tiles of `side` pixels. The configuration has (width, height) in pixels.

    Raises ValueError if it does not.
    """
    found = start.facts.get("image_grid_pinpoints")
    try:
        sizes: Any = json.loads(found.replace("(", "[").replace(")", "]")) if isinstance(found, str) else found
        tiles = tuple((_quotient(height, side), _quotient(width, side)) for width, height in sizes)
    except (TypeError, ValueError):
        tiles = ()
    if not tiles:
        raise ValueError(
            f"preprocessing: image_grid_pinpoints of {start.name} must be pairs of width and height, multiples of the tower's"
            f" {side} pixels, not {str(found)[:80]!r}"
        )
    return tiles


def _quotient(pixels: Any, side: int) -> int:
    """Return how many tiles of `side` pixels fit. Raises ValueError if `pixels` is not a multiple, or TypeError."""
    if not isinstance(pixels, int) or pixels < side or pixels % side:
        raise ValueError
    return pixels // side
