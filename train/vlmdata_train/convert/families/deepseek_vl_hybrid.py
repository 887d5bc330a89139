"""DeepSeek-VL with two towers, as `DeepseekVLHybridForConditionalGeneration` of transformers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import (
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridImageProcessor,
    DeepseekVLHybridProcessor,
)

from vlmdata_train.convert.families.deepseek_vl import SIGLIP, DeepseekVl
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, square
from vlmdata_train.convert.towers import is_last_layer_of
from vlmdata_train.encoders.sam import SamTower
from vlmdata_train.encoders.side_by_side import Towers
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe

_HIGH = "encoder.towers.0."


class DeepseekVlHybrid(DeepseekVl):
    """DeepSeek-VL's hybrid: SAM with a reduced grid beside SigLIP, and a linear layer for each tower before the MLP."""

    title = "DeepSeek-VL's hybrid"
    forms: ClassVar = ("deepseek_vl_hybrid",)
    names: ClassVar = (
        ("model.high_res_vision_model.", f"{_HIGH}model."),
        ("model.high_res_vision_neck.", f"{_HIGH}reducer.neck."),
        ("model.high_res_vision_proj.conv1.", f"{_HIGH}reducer.halve.0."),
        ("model.high_res_vision_proj.conv2.", f"{_HIGH}reducer.halve.1."),
        ("model.high_res_vision_alpha", f"{_HIGH}reducer.alpha"),
        ("model.vision_model.", "encoder.towers.1.model."),
        ("model.aligner.high_res_vision_proj.", "abstractor.of_tower.0."),
        ("model.aligner.vision_proj.", "abstractor.of_tower.1."),
        ("model.aligner.proj.", "abstractor.output."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    parts: ClassVar = {**DeepseekVl.parts, "abstractor": "hybrid_mlp"}
    their_config: ClassVar = DeepseekVLHybridConfig
    their_class: ClassVar = DeepseekVLHybridForConditionalGeneration
    their_images: ClassVar = DeepseekVLHybridImageProcessor
    their_processor: ClassVar = DeepseekVLHybridProcessor

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another preparation of images."""
        images = start.images
        if images.resample != images.high_res_resample:
            raise ValueError(f"preprocessing: {start.name} must resize images for both towers with the same filter")
        return super().recipe(start)

    def encoder_of(self, start: Published) -> dict[str, Any]:
        """Return the entry of the encoder in a recipe. SAM's grid is reduced to that of SigLIP."""
        config, images = start.config, start.images
        high = {
            "config": plain_config(config.high_res_vision_config),
            "side": config.vision_config.image_size // config.vision_config.patch_size,
            "mean": images.high_res_image_mean, "std": images.high_res_image_std,
        }  # fmt: skip
        return {"side_by_side": {"towers": [{"sam": high}, super().encoder_of(start)]}}

    def encoder_misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield the encoder if it is not a reduced SAM beside SigLIP."""
        towers = list(model.encoder.towers) if type(model.encoder) is Towers else []
        is_pair = len(towers) == 2 and type(towers[0]) is SamTower and towers[0].reducer is not None
        if not is_pair or not is_last_layer_of(towers[1], "siglip_vision_model", extra=0):
            yield "encoder", f"side_by_side, with a sam with a `side`, and {SIGLIP}"

    def vision_configs(self, encoder: Any) -> dict[str, Any]:
        """Return the configurations of the towers."""
        high, low = (copy.deepcopy(tower.model.config) for tower in encoder.towers)
        return {"high_res_vision_config": high, "vision_config": low}

    def image_options(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the options of the image processor for the towers."""
        high, low = model.plan.facts.towers
        resample = FILTERS.index(model.plan.preprocessing.resample)
        return {
            "size": square(low.image_size), "image_mean": list(low.mean), "image_std": list(low.std), "resample": resample,
            "high_res_size": square(high.image_size), "high_res_image_mean": list(high.mean),
            "high_res_image_std": list(high.std), "high_res_resample": resample,
        }  # fmt: skip
