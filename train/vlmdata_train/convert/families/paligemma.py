"""PaliGemma 1 and 2, as `PaliGemmaForConditionalGeneration` of transformers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
)

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, as_causal, plain_config
from vlmdata_train.convert.served import FILTERS, FLATTEN, pixel_options, square, writes_like
from vlmdata_train.convert.towers import is_last_layer_of
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import IMAGE

# PaliGemma has no chat template, because its processor makes the prompt: all images, BOS, the question and a line end.
_IMAGES = (
    "{%- set ns = namespace(images=0) -%}{%- for m in messages -%}"
    "{%- set ns.images = ns.images + (m['content'].split('" + IMAGE + "') | length) - 1 -%}{%- endfor -%}"
    "{{- '" + IMAGE + "' * ns.images -}}"
)
_TURNS = "{%- for m in messages -%}{{- m['content'].replace('" + IMAGE + "', '') | trim -}}"
TEMPLATE = _IMAGES + "{{- bos_token -}}" + _TURNS + "{{- eos_token if m['role'] == 'assistant' else '\\n' -}}{%- endfor -%}"
# the template of the processor, which adds BOS and the last line end itself
SERVED = FLATTEN.rstrip("\n") + _IMAGES + _TURNS + (
    "{{- eos_token if m['role'] == 'assistant' else '' if loop.last else '\\n' -}}{%- endfor -%}"
)  # fmt: skip


class PaliGemma(Family):
    """PaliGemma: SigLIP, a linear layer, and a Gemma in which the prompt attends in both directions."""

    title = "PaliGemma"
    forms = ("paligemma",)
    grounding = "paligemma"
    names = (
        ("model.vision_tower.", "encoder.model."),
        ("model.multi_modal_projector.linear.", "abstractor."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    caps, prefix = True, True
    parts: ClassVar = {
        "preprocessing": "resize", "abstractor": "linear", "fusion": "tokens", "positions": "rope", "writing": "plain",
    }  # fmt: skip

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts."""
        config, images, text = start.config, start.images, start.config.text_config
        return ModelRecipe(
            encoder={"hf_vision": {
                "config": plain_config(config.vision_config), "layer": -1, "norm": True, "mean": images.image_mean,
                "std": images.image_std,
            }},
            preprocessing={"resize": {"resample": FILTERS[int(images.resample)]}},
            abstractor="linear",
            fusion={"tokens": {"prefix": True}},
            writing={"plain": {"image_token": start.token(config.image_token_id), "bos": "after_images"}},
            language={"hf_causal": {
                "config": as_causal(
                    text, text.model_type, use_bidirectional_attention=None,
                    tie_word_embeddings=start.ties,
                ),
                "tokenizer": start.name, "chat_template": TEMPLATE,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, language = model.plan, model.language.config.model_type
        if not is_last_layer_of(model.encoder, "siglip_vision_model", extra=0):
            yield "encoder", "a SigLIP by hf_vision, with `layer: -1` and `norm: true`"
        yield from super().misfits(model)
        if not getattr(plan.abstractor, "bias", True):
            yield "abstractor", "linear, with a bias"
        if not getattr(plan.fusion, "prefix", False):
            yield "fusion", "tokens, with `prefix: true`"
        if plan.writing.bos != "after_images" or model.image_token != IMAGE:
            yield "writing", "plain, with BOS after the images and the image token `<image>`"
        if language not in ("gemma", "gemma2"):
            yield "language", f"a gemma or gemma2 model, not {language}"
        if not writes_like(model.tokenizer, TEMPLATE, IMAGE) or "<seg127>" not in model.tokenizer.get_vocab():
            yield "language", "the tokenizer of a published PaliGemma, and prompts as in the recipe paligemma"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return PaliGemmaForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text = model.language.config.to_dict()
        return PaliGemmaConfig(
            vision_config=model.encoder.model.config.to_dict(),
            text_config={**text, "use_bidirectional_attention": True}, image_token_index=model.image_token_id,
            vocab_size=text["vocab_size"], projection_dim=text["hidden_size"], hidden_size=text["hidden_size"],
            tie_word_embeddings=text["tie_word_embeddings"], dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, side = model.plan, model.plan.facts.image_size
        images: Any = SiglipImageProcessor(size=square(side), **pixel_options(plan))
        images.image_seq_length = plan.grid_of(side, side).tokens
        tokenizer = copy.deepcopy(model.tokenizer)  # the processor changes how it writes BOS
        tokenizer.chat_template = SERVED
        return PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=SERVED)
