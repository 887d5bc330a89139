"""Kosmos-2, as `Kosmos2ForConditionalGeneration` of transformers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import (
    CLIPImageProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
)
from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2VisionConfig

from vlmdata_train.abstractors.kosmos_resampler import KosmosResampler
from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, square
from vlmdata_train.convert.towers import is_last_layer_of
from vlmdata_train.data.prompts import written_before
from vlmdata_train.languages.kosmos2 import TYPE
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.preprocessing.centre_crop import CentreCrop
from vlmdata_train.preprocessing.resize import Resize
from vlmdata_train.writings.between import Between

CLIP = "clip_vision_model"  # Kosmos-2's tower has the layers of CLIP's, but another `model_type`
VISION = {field.name for field in dataclasses.fields(Kosmos2VisionConfig)} - {"model_type"}  # fields of its configuration
QUERIES = 64  # the number of tokens that the processor writes for an image
START, END = "<image>", "</image> "  # around these tokens
# Kosmos-2 has no chat template. This one writes all images, then the prompt for questions that its model card has. A system
# message such as `<grounding>` comes before the question.
TEMPLATE = (
    "{%- set ns = namespace(images=0) -%}{%- for m in messages -%}"
    "{%- set ns.images = ns.images + (m['content'].split('IMAGE') | length) - 1 -%}{%- endfor -%}"
    "{{- 'IMAGE' * ns.images -}}{%- for m in messages -%}"
    "{%- set text = m['content'].replace('IMAGE', '') | trim -%}"
    "{{- ' ' + text + eos_token if m['role'] == 'assistant' else text + ' ' if m['role'] == 'system'"
    " else 'Question: ' + text + ' Answer:' -}}{%- endfor -%}"
)


class Kosmos2(Family):
    """Kosmos-2: CLIP, a resampler, and a decoder whose vocabulary has places in the image."""

    title = "Kosmos-2"
    forms = ("kosmos-2",)
    grounding = "kosmos2"
    names = (
        ("vision_model.model.", "encoder.model."),
        ("image_to_text_projection.dense.", "abstractor.project."),
        ("image_to_text_projection.latent_query", "abstractor.queries"),
        ("image_to_text_projection.x_attn.q_proj.", "abstractor.query."),
        ("image_to_text_projection.x_attn.k_proj.", "abstractor.key."),
        ("image_to_text_projection.x_attn.v_proj.", "abstractor.value."),
        ("image_to_text_projection.x_attn.out_proj.", "abstractor.output."),
        ("text_model.", "language."),
    )
    parts: ClassVar = {
        "abstractor": "kosmos_resampler", "fusion": "tokens", "positions": "rope", "writing": "between", "language": TYPE,
    }  # fmt: skip

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for a tokenizer without a mask token."""
        config, images, image = start.config, start.images, start.tokenizer.mask_token
        if image is None:
            raise ValueError(f"writing: the tokenizer of {start.name} has no mask token, which marks the places of features")
        text = config.text_config
        return ModelRecipe(
            encoder={"hf_vision": {
                "config": {**plain_config(config.vision_config), "model_type": CLIP}, "layer": -1, "tokens": "all",
                "norm": True, "mean": images.image_mean, "std": images.image_std,
            }},
            preprocessing={"centre_crop" if images.do_center_crop else "resize": {"resample": FILTERS[int(images.resample)]}},
            abstractor={"kosmos_resampler": {
                "queries": config.latent_query_num, "head_width": text.embed_dim // text.attention_heads,
            }},
            writing={"between": {"start": START, "end": END, "image_token": image}},
            language={"kosmos2": {
                "config": plain_config(text, tie_word_embeddings=start.ties), "tokenizer": start.name,
                "chat_template": start.tokenizer.chat_template or TEMPLATE.replace("IMAGE", image),
            }},
        )  # fmt: skip

    def grounding_of(self, start: Published) -> str | None:
        """Return the form in which a published model writes boxes. The language model adds its tokens to any tokenizer."""
        return self.grounding

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, tokenizer = model.plan, model.tokenizer
        if not is_last_layer_of(model.encoder, CLIP, extra=0):
            yield "encoder", "a CLIP by hf_vision, with `layer: -1`, `norm: true` and `tokens: all`"
        if type(plan.preprocessing) not in (CentreCrop, Resize):
            yield "preprocessing", "centre_crop or resize"
        yield from super().misfits(model)
        text = model.language.config
        if text.model_type == TYPE and isinstance(plan.abstractor, KosmosResampler):
            expected = KosmosResampler(queries=QUERIES, head_width=text.embed_dim // text.attention_heads)
            if plan.abstractor != expected:
                yield "abstractor", f"kosmos_resampler of {QUERIES} queries, with the head width of the language model"
        if tokenizer.mask_token is None or plan.writing != Between(start=START, end=END, image_token=tokenizer.mask_token):
            yield "writing", "between with `<image>`, `</image> ` and the tokenizer's mask token as the image token"
        elif not _can_be_served(tokenizer, model.image_token):
            yield "language", f"a tokenizer that begins texts with BOS and has {QUERIES} words after its `unk_token`"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return Kosmos2ForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, vision = copy.deepcopy(model.language.config), model.encoder.model.config.to_dict()
        return Kosmos2Config(
            vision_config={name: value for name, value in vision.items() if name in VISION}, text_config=text,
            latent_query_num=model.plan.abstractor.queries, tie_word_embeddings=text.tie_word_embeddings,
            dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. Its tokenizer has the chat template, because Kosmos-2's processor loads none."""
        plan, side = model.plan, model.plan.facts.image_size
        is_cropped = isinstance(plan.preprocessing, CentreCrop)
        images = CLIPImageProcessor(
            size={"shortest_edge": side} if is_cropped else square(side), crop_size=square(side), do_center_crop=is_cropped,
            **pixel_options(plan),
        )  # fmt: skip
        return Kosmos2Processor(images, copy.deepcopy(model.tokenizer))


def _can_be_served(tokenizer: Any, image_token: str) -> bool:
    """Return whether the processor, which begins a text with BOS, can write the ids after `unk_token` where features belong.

    None of these ids may be padding, because the decoder gives padding no position.
    """
    if written_before(tokenizer, image_token) != [tokenizer.bos_token_id] or tokenizer.unk_token is None:
        return False
    first = tokenizer.unk_token_id + 1
    return tokenizer.pad_token_id not in range(first, first + QUERIES) and first + QUERIES <= len(tokenizer)
