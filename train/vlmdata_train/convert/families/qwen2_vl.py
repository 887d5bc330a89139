"""Qwen2-VL, as `Qwen2VLForConditionalGeneration` of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from vlmdata_train.abstractors.patch_merger import PatchMerger
from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, as_causal, plain_config
from vlmdata_train.convert.served import FILTERS, served_template, served_tokenizer
from vlmdata_train.encoders.qwen2_vl import Qwen2VlTower
from vlmdata_train.fusions.tokens import Tokens
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD
from vlmdata_train.positions.mrope import Mrope
from vlmdata_train.preprocessing.smart_size import SmartSize


class Qwen2Vl(Family):
    """Qwen2-VL: a tower for images of any size, a merger of patches, a Qwen2 with positions on three axes."""

    title = "Qwen2-VL"
    forms = ("qwen2_vl",)
    names = (
        ("model.visual.merger.ln_q.", "abstractor.norm."),
        ("model.visual.merger.mlp.", "abstractor.mlp."),
        ("model.visual.", "encoder.model."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    # what a subclass changes
    encoder: ClassVar[str] = "qwen2_vl"
    tower: ClassVar[type] = Qwen2VlTower
    norm: ClassVar[str] = "layer"
    language: ClassVar[str] = "qwen2"
    their_config: ClassVar[Any] = Qwen2VLConfig
    their_processor: ClassVar[Any] = Qwen2VLProcessor
    their_class: ClassVar[Any] = Qwen2VLForConditionalGeneration

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another normalisation of pixels."""
        config, images = start.config, start.images
        if (tuple(images.image_mean), tuple(images.image_std)) != (CLIP_MEAN, CLIP_STD):
            found = f"{images.image_mean} and {images.image_std}"
            raise ValueError(f"encoder: {start.name} normalises pixels by {found}, but the trainer's tower does it as CLIP")
        text, side = config.text_config, config.vision_config.spatial_merge_size
        rope = dict(text.rope_parameters)
        sections = rope.pop("mrope_section")
        ties = bool(config.tie_word_embeddings or getattr(text, "tie_word_embeddings", False))
        return ModelRecipe(
            encoder={self.encoder: {"config": plain_config(config.vision_config)}},
            preprocessing={"smart_size": {
                "min_pixels": images.size["shortest_edge"], "max_pixels": images.size["longest_edge"], "square": side,
                "resample": FILTERS[int(images.resample)],
            }},
            abstractor={"patch_merger": {"side": side, "norm": self.norm}},
            positions={"mrope": {"sections": sections}},
            writing={"plain": {
                "image_token": start.token(config.image_token_id), "video_token": start.token(config.video_token_id),
            }},
            language={"hf_causal": {
                "config": as_causal(text, self.language, rope_parameters=rope, tie_word_embeddings=ties),
                "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, language = model.plan, model.language.config.model_type
        if type(model.encoder) is not self.tower:
            yield "encoder", self.encoder
        if type(plan.preprocessing) is not SmartSize:
            yield "preprocessing", "smart_size"
        if type(plan.abstractor) is not PatchMerger or plan.abstractor.norm != self.norm:
            yield "abstractor", f"patch_merger with the norm `{self.norm}`"
        if type(plan.fusion) is not Tokens or plan.fusion.prefix:
            yield "fusion", "tokens, without prefix"
        if type(model.positions) is not Mrope:
            yield "positions", "mrope"
        if language != self.language:
            yield "language", f"a {self.language} model, not {language}"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return self.their_class

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, tokenizer = model.language.config, model.tokenizer
        rope = {**text.rope_parameters, "mrope_section": list(model.positions.sections)}
        ids = {
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")
        }  # fmt: skip
        known = self.their_config().text_config.to_dict()
        return self.their_config(
            vision_config=model.encoder.model.config.to_dict(),
            text_config={name: value for name, value in {**text.to_dict(), "rope_parameters": rope}.items() if name in known},
            image_token_id=model.image_token_id, video_token_id=model.video_token_id,
            tie_word_embeddings=text.tie_word_embeddings, dtype=next(model.parameters()).dtype, **ids,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, config = model.plan, model.encoder.model.config
        options = {
            "size": {"shortest_edge": plan.preprocessing.min_pixels, "longest_edge": plan.preprocessing.max_pixels},
            "patch_size": config.patch_size, "merge_size": config.spatial_merge_size,
            "temporal_patch_size": config.temporal_patch_size, "image_mean": list(plan.facts.mean),
            "image_std": list(plan.facts.std), "resample": FILTERS.index(plan.preprocessing.resample),
        }  # fmt: skip
        return self.their_processor(
            image_processor=Qwen2VLImageProcessor(**options), video_processor=Qwen2VLVideoProcessor(**options),
            tokenizer=served_tokenizer(model.tokenizer, model.image_token),
            chat_template=served_template(model.tokenizer, model.image_token),
        )  # fmt: skip
