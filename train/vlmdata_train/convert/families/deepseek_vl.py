"""DeepSeek-VL with one tower, as `DeepseekVLForConditionalGeneration` of transformers. The hybrid model is a subclass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
)

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import (
    FILTERS,
    pixel_options,
    served_template,
    served_tokenizer,
    square,
    with_named_tokens,
)
from vlmdata_train.convert.towers import is_last_layer_of
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe

SIGLIP = "a SigLIP by hf_vision, with `layer: -1` and `norm: true`"


class DeepseekVl(Family):
    """DeepSeek-VL: SigLIP, images padded to a square, an MLP, and image tokens in the text of any causal language model."""

    title = "DeepSeek-VL"
    forms: ClassVar[tuple[str, ...]] = ("deepseek_vl",)
    names: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model.vision_model.", "encoder.model."),
        ("model.aligner.linear1.", "abstractor.0."),
        ("model.aligner.linear2.", "abstractor.2."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    parts: ClassVar[Mapping[str, str]] = {
        "preprocessing": "resize_pad", "abstractor": "mlp", "fusion": "tokens", "positions": "rope", "writing": "plain",
    }  # fmt: skip
    # what the hybrid model changes, beside the parts
    their_config: ClassVar[Any] = DeepseekVLConfig
    their_class: ClassVar[Any] = DeepseekVLForConditionalGeneration
    their_images: ClassVar[Any] = DeepseekVLImageProcessor
    their_processor: ClassVar[Any] = DeepseekVLProcessor

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another preparation of images."""
        config, images = start.config, start.images
        if not (images.do_resize and images.do_pad):
            raise ValueError(f"preprocessing: {start.name} must resize images and pad them to squares")
        return ModelRecipe(
            encoder=self.encoder_of(start),
            preprocessing={"resize_pad": {"shortest": images.min_size, "resample": FILTERS[int(images.resample)]}},
            abstractor=self.parts["abstractor"],
            writing={"plain": {"image_token": start.token(config.image_token_id)}},
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
            }},
        )  # fmt: skip

    def encoder_of(self, start: Published) -> dict[str, Any]:
        """Return the entry of the encoder in a recipe."""
        return {"hf_vision": {
            "config": plain_config(start.config.vision_config), "layer": -1, "norm": True, "mean": start.images.image_mean,
            "std": start.images.image_std,
        }}  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        yield from self.encoder_misfits(model)
        yield from super().misfits(model)
        if isinstance(model.plan.abstractor, Mlp) and model.plan.abstractor != Mlp():
            yield "abstractor", "mlp, with its defaults"
        if model.plan.writing.bos != "first" or model.plan.writing.placeholder is not None:
            yield "writing", "plain, with BOS first and without a placeholder"

    def encoder_misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield the encoder if it is not SigLIP."""
        if not is_last_layer_of(model.encoder, "siglip_vision_model", extra=0):
            yield "encoder", SIGLIP

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return self.their_class

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration. By default transformers would tie the output layer to the embeddings."""
        text = self.text_config(model)
        return self.their_config(
            **self.vision_configs(model.encoder), text_config=text, image_token_id=model.image_token_id,
            tie_word_embeddings=text.tie_word_embeddings, dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def vision_configs(self, encoder: Any) -> dict[str, Any]:
        """Return the configurations of the towers."""
        return {"vision_config": copy.deepcopy(encoder.model.config)}

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        facts = model.plan.facts
        tokenizer = with_named_tokens(served_tokenizer(model.tokenizer, model.image_token), image_token=model.image_token)
        return self.their_processor(
            image_processor=self.their_images(min_size=model.plan.preprocessing.shortest, **self.image_options(model)),
            tokenizer=tokenizer, chat_template=served_template(model.tokenizer, model.image_token),
            num_image_tokens=model.plan.grid_of(facts.image_size, facts.image_size).tokens,
        )  # fmt: skip

    def image_options(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the options of the image processor for the towers."""
        return {"size": square(model.plan.facts.image_size), **pixel_options(model.plan)}
