"""InternVL, as `InternVLForConditionalGeneration` of transformers. InternVL's original format is another one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from vlmdata_train.abstractors.pixel_shuffle import PixelShuffle
from vlmdata_train.convert.family import Family
from vlmdata_train.convert.frames import frame_options, frames_of
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import (
    FILTERS,
    VIDEO,
    pixel_options,
    served_template,
    served_tokenizer,
    square,
    with_named_tokens,
)
from vlmdata_train.convert.towers import is_last_layer_of
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe


class InternVL(Family):
    """InternVL: an InternViT, tiles with a thumbnail, squares of patches merged by an MLP, and any language model."""

    title = "InternVL"
    forms = ("internvl",)
    grounding = "internvl"
    names = (
        ("model.vision_tower.", "encoder.model."),
        ("model.multi_modal_projector.layer_norm.", "abstractor.layers.0."),
        ("model.multi_modal_projector.linear_1.", "abstractor.layers.1."),
        ("model.multi_modal_projector.linear_2.", "abstractor.layers.3."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    parts: ClassVar = {
        "preprocessing": "dynamic_tiles", "abstractor": "pixel_shuffle", "fusion": "tokens", "positions": "rope",
        "writing": "between",
    }  # fmt: skip

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for features that are not those of the last layer."""
        config, images, videos, tokenizer = start.config, start.images, start.videos, start.tokenizer
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
            raise ValueError(f"encoder: {start.name} uses other features than the patches of the last layer")
        return ModelRecipe(
            encoder={"hf_vision": {
                "config": plain_config(config.vision_config), "layer": -1, "norm": True, "mean": images.image_mean,
                "std": images.image_std,
            }},
            preprocessing={"dynamic_tiles": {
                "min_tiles": images.min_patches, "max_tiles": images.max_patches, "resample": FILTERS[int(images.resample)],
            }},
            abstractor={"pixel_shuffle": {
                "factor": round(1 / config.downsample_ratio), "layers": 2, "norm": True,
                "activation": config.projector_hidden_act,
            }},
            writing={"between": {
                "start": tokenizer.start_image_token, "end": tokenizer.end_image_token,
                "image_token": start.token(config.image_token_id), "frame": "Frame{number}: ", "frame_end": "\n",
            }},
            video={"frames": frames_of(videos, "middles" if videos.initial_shift else "starts")},
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan = model.plan
        if not is_last_layer_of(model.encoder, "internvl_vision", extra=1):
            yield "encoder", "an InternViT by hf_vision, with `layer: -1` and `norm: true`"
        yield from super().misfits(model)
        if not getattr(plan.preprocessing, "thumbnail", True):
            yield "preprocessing", "dynamic_tiles, with a thumbnail"
        mlp = plan.abstractor
        if type(mlp) is PixelShuffle and not (mlp.layers == 2 and mlp.norm and mlp.bias and not mlp.norm_after):
            yield "abstractor", "pixel_shuffle of 2 layers, with a norm first and biases"
        if getattr(plan.writing, "around", "image") != "image" or plan.writing.bos != "first":
            yield "writing", "between around images, with BOS first"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return InternVLForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        plan, text, side = model.plan, self.text_config(model), model.plan.facts.image_size
        return InternVLConfig(
            vision_config=copy.deepcopy(model.encoder.model.config), text_config=text, image_token_id=model.image_token_id,
            image_seq_length=plan.grid_of(side, side).tokens, downsample_ratio=1 / plan.abstractor.factor,
            projector_hidden_act=plan.abstractor.activation, tie_word_embeddings=text.tie_word_embeddings,
            dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, side = model.plan, model.plan.facts.image_size
        options = {"size": square(side), **pixel_options(plan)}
        tokenizer = with_named_tokens(
            served_tokenizer(model.tokenizer, model.image_token), start_image_token=plan.writing.start,
            end_image_token=plan.writing.end, context_image_token=model.image_token,
            video_token=getattr(model.tokenizer, "video_token", None) or VIDEO,  # needed even for images alone
        )  # fmt: skip
        return InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(
                **options, crop_to_patches=True, min_patches=plan.preprocessing.min_tiles,
                max_patches=plan.preprocessing.max_tiles,
            ),
            video_processor=InternVLVideoProcessor(**{**options, **frame_options(plan)}), tokenizer=tokenizer,
            image_seq_length=plan.grid_of(side, side).tokens,
            chat_template=served_template(tokenizer, model.image_token, tokenizer.video_token),
        )  # fmt: skip
