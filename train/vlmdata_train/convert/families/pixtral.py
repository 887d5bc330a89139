"""Pixtral in LLaVA's format, as `LlavaForConditionalGeneration` of transformers. Mistral 3 is a subclass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from transformers import LlavaConfig, LlavaForConditionalGeneration, PixtralImageProcessor, PixtralProcessor

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, served_template, served_tokenizer
from vlmdata_train.convert.towers import check_normalisation
from vlmdata_train.encoders.pixtral import PixtralTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD


class Pixtral(Family):
    """Pixtral: a tower for images of any size, an MLP, and tokens after the rows of an image."""

    title = "Pixtral"
    forms = ("llava",)
    names: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model.vision_tower.", "encoder.model."),
        ("model.multi_modal_projector.linear_1.", "abstractor.0."),
        ("model.multi_modal_projector.linear_2.", "abstractor.2."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    tower: ClassVar[type | None] = PixtralTower
    parts: ClassVar[Mapping[str, str]] = {
        "encoder": "pixtral", "preprocessing": "longest_edge", "abstractor": "mlp", "fusion": "tokens", "positions": "rope",
        "writing": "rows",
    }  # fmt: skip

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a model has this format."""
        return super().takes(facts) and (facts.get("vision_config") or {}).get("model_type") == "pixtral"

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another normalisation, or for features of another layer."""
        config, images, square = start.config, start.images, self.square_of(start.config)
        check_normalisation(start, CLIP_MEAN, CLIP_STD)
        if config.vision_feature_layer != -1:
            raise ValueError(f"encoder: {start.name} must use the features of the tower's last layer")
        tower = {"config": plain_config(config.vision_config), **({"square": square} if square > 1 else {})}
        return ModelRecipe(
            encoder={self.parts["encoder"]: tower},
            preprocessing={"longest_edge": {
                "longest": images.size["longest_edge"], "square": square, "resample": FILTERS[int(images.resample)],
            }},
            abstractor={self.parts["abstractor"]: self.abstractor_of(config)},
            writing={"rows": {
                "row_end": "[IMG_BREAK]", "last_row_end": "[IMG_END]", "image_token": start.token(config.image_token_id),
            }},
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
            }},
        )  # fmt: skip

    def square_of(self, config: Any) -> int:
        """Return the side, in patches, of a square that becomes one token."""
        return 1

    def abstractor_of(self, config: Any) -> dict[str, Any]:
        """Return the parameters of the abstractor."""
        return {"activation": config.projector_hidden_act, "bias": config.multimodal_projector_bias}

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan = model.plan
        yield from super().misfits(model)
        if getattr(plan.abstractor, "layers", 2) != 2 or getattr(plan.abstractor, "norm", False) is True:
            yield "abstractor", "an mlp of 2 layers without norm"
        if getattr(plan.abstractor, "norm_after", False):
            yield "abstractor", "an mlp without norms"
        writing = plan.writing
        if any(getattr(writing, name, None) is not None for name in ("start", "end", "overview_start")):
            yield "writing", "rows, without tokens around the image"
        if writing.bos != "first" or getattr(writing, "last_row_end", "") is None:
            yield "writing", "rows with `last_row_end`, with BOS first"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return LlavaForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        return LlavaConfig(
            vision_feature_select_strategy="full", projector_hidden_act=model.plan.abstractor.activation,
            **self.common_config(model),
        )  # fmt: skip

    def common_config(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the entries of the configuration that Pixtral and Mistral 3 have."""
        text = self.text_config(model)
        return {
            "vision_config": copy.deepcopy(model.encoder.model.config), "text_config": text,
            "image_token_index": model.image_token_id, "vision_feature_layer": -1,
            "multimodal_projector_bias": model.plan.abstractor.bias, "tie_word_embeddings": text.tie_word_embeddings,
            "dtype": next(model.parameters()).dtype,
        }  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, patch = model.plan, model.plan.facts.patch_size
        images = PixtralImageProcessor(
            size={"longest_edge": plan.preprocessing.longest}, patch_size={"height": patch, "width": patch},
            **pixel_options(plan),
        )  # fmt: skip
        return PixtralProcessor(
            image_processor=images, tokenizer=served_tokenizer(model.tokenizer, model.image_token), patch_size=patch,
            spatial_merge_size=plan.preprocessing.square, image_token=model.image_token,
            image_break_token=plan.writing.row_end, image_end_token=plan.writing.last_row_end,
            chat_template=served_template(model.tokenizer, model.image_token),
        )  # fmt: skip
