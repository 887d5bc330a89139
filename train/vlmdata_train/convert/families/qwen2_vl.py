"""Qwen2-VL, as `Qwen2VLForConditionalGeneration` of transformers. Qwen2.5-VL and Qwen3-VL are subclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, as_causal, plain_config
from vlmdata_train.convert.served import FILTERS, served_template, served_tokenizer
from vlmdata_train.convert.towers import check_normalisation
from vlmdata_train.encoders.qwen2_vl import Qwen2VlTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD


class Qwen2Vl(Family):
    """Qwen2-VL: a tower for images of any size, a merger of patches, a Qwen2 with positions on three axes."""

    title = "Qwen2-VL"
    forms = ("qwen2_vl",)
    names: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model.visual.merger.ln_q.", "abstractor.norm."),
        ("model.visual.merger.mlp.", "abstractor.mlp."),
        ("model.visual.", "encoder.model."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    tower: ClassVar[type | None] = Qwen2VlTower
    parts: ClassVar[Mapping[str, str]] = {
        "encoder": "qwen2_vl", "preprocessing": "smart_size", "abstractor": "patch_merger", "fusion": "tokens",
        "positions": "mrope", "writing": "plain", "language": "qwen2",
    }  # fmt: skip
    # what a subclass changes, beside the parts
    abstractor: ClassVar[Mapping[str, Any]] = {"norm": "layer"}  # parameters, without `side`
    rope: ClassVar[Mapping[str, Any]] = {}  # entries of transformers' `rope_parameters` that our language model does not need
    normalisation: ClassVar[tuple[Any, Any]] = (CLIP_MEAN, CLIP_STD)
    their_config: ClassVar[Any] = Qwen2VLConfig
    their_processor: ClassVar[Any] = Qwen2VLProcessor
    their_videos: ClassVar[Any] = Qwen2VLVideoProcessor
    their_class: ClassVar[Any] = Qwen2VLForConditionalGeneration

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another normalisation of pixels."""
        config, images, parts = start.config, start.images, self.parts
        check_normalisation(start, *self.normalisation)
        text, side = config.text_config, config.vision_config.spatial_merge_size
        rope = {name: value for name, value in text.rope_parameters.items() if name not in self.rope}
        sections = rope.pop("mrope_section")
        return ModelRecipe(
            encoder={parts["encoder"]: {"config": plain_config(config.vision_config)}},
            preprocessing={parts["preprocessing"]: {
                "min_pixels": images.size["shortest_edge"], "max_pixels": images.size["longest_edge"], "square": side,
                "resample": FILTERS[int(images.resample)],
            }},
            abstractor={parts["abstractor"]: {"side": side, **self.abstractor}},
            fusion=parts["fusion"],
            positions={parts["positions"]: {"sections": sections}},
            writing={parts["writing"]: {
                "image_token": start.token(config.image_token_id), "video_token": start.token(config.video_token_id),
            }},
            language={"hf_causal": {
                "config": as_causal(text, parts["language"], rope_parameters=rope, tie_word_embeddings=start.ties),
                "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        yield from super().misfits(model)
        own = {name: getattr(model.plan.abstractor, name, None) for name in self.abstractor}
        if own != self.abstractor:
            yield "abstractor", f"{self.parts['abstractor']}: {dict(self.abstractor)}"
        if model.plan.writing.video_token is None:
            yield "writing", "plain, with a `video_token`"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return self.their_class

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, tokenizer = model.language.config, model.tokenizer
        rope = {**text.rope_parameters, **self.rope, "mrope_section": list(model.positions.sections)}
        ids = {
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")
        }  # fmt: skip
        known = {*self.their_config().text_config.to_dict(), "bos_token_id", "eos_token_id", "pad_token_id"}
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
            image_processor=Qwen2VLImageProcessor(**options), video_processor=self.their_videos(**options),
            tokenizer=served_tokenizer(model.tokenizer, model.image_token),
            chat_template=served_template(model.tokenizer, model.image_token),
        )  # fmt: skip
