"""Fuyu, as `FuyuForCausalLM` of transformers.

Its processor writes the image, `<s>`, the text and `<0x04>`, which begins the answer. It drops the first id of the image's
tokens, because Fuyu's tokenizer begins each text with a blank. The tokenizer has the tokens of images as ordinary pieces. In
the trainer they are special tokens, so that no data can contain them. An export has them as pieces again, because the processor
would otherwise drop an image token: no blank precedes a special token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from tokenizers import Tokenizer
from transformers import FuyuConfig, FuyuForCausalLM, FuyuImageProcessor, FuyuProcessor, PreTrainedTokenizerFast

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, FLATTEN, pixel_options, square, writes_like
from vlmdata_train.encoders.raw_patches import Patches
from vlmdata_train.encoders.siglip_navit import HALF
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import IMAGE

PATCH, ROW_END, BEGIN, ANSWER = "|SPEAKER|", "|NEWLINE|", "<s>", "<0x04>"
# Fuyu has no chat template. This one writes all images, and each question with a line end, as in the examples of its processor.
_IMAGES = (
    "{%- set ns = namespace(images=0) -%}{%- for m in messages -%}"
    "{%- set ns.images = ns.images + (m['content'].split('" + PATCH + "') | length) - 1 -%}{%- endfor -%}"
    "{{- '" + PATCH + "' * ns.images -}}"
)
_TURNS = (
    "{%- for m in messages -%}{{- m['content'].replace('" + PATCH + "', '') | trim -}}"
    "{{- eos_token if m['role'] == 'assistant' else '\\n' if m['role'] == 'system' else END -}}{%- endfor -%}"
)
TEMPLATE = _IMAGES + _TURNS.replace("END", f"'\\n{ANSWER}'")
# the template of an export, whose processor adds the images and the last `<0x04>`
SERVED = FLATTEN.replace(IMAGE, PATCH).rstrip("\n") + _TURNS.replace("END", f"'\\n' if loop.last else '\\n{ANSWER}'")


class Fuyu(Family):
    """Fuyu: patches of pixels in their rows, a linear layer, and a Persimmon."""

    title = "Fuyu"
    forms = ("fuyu",)
    names = (
        ("model.vision_embed_tokens.", "abstractor."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    tower = Patches
    parts: ClassVar = {
        "encoder": "raw_patches", "preprocessing": "native", "abstractor": "linear", "fusion": "tokens", "positions": "rope",
        "writing": "rows", "language": "persimmon",
    }  # fmt: skip

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another preparation of images."""
        config, images = start.config, start.images
        numbers = [images.image_mean, images.image_std]  # one number each in the published model
        if any(own not in (0.5, [0.5] * 3, HALF) for own in numbers) or not images.do_pad or images.padding_value != 1:
            raise ValueError(f"preprocessing: {start.name} must pad images with ones and normalise pixels by 0.5 and 0.5")
        if start.token(config.image_token_id) != PATCH:
            raise ValueError(f"writing: {start.name} must have the image token {PATCH}")
        return ModelRecipe(
            encoder={"raw_patches": {"patch_size": config.patch_size, "image_size": config.image_size}},
            preprocessing={"native": {
                "max_height": images.size["height"], "max_width": images.size["width"],
                "resample": FILTERS[int(images.resample)],
            }},
            abstractor="linear",
            writing={"rows": {"row_end": ROW_END, "image_token": PATCH, "bos": "after_images", "bos_token": BEGIN}},
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
                "chat_template": TEMPLATE,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, patch = model.plan, model.plan.facts.patch_size
        yield from super().misfits(model)
        limits = [getattr(plan.preprocessing, name, patch) for name in ("max_height", "max_width")]
        if any(limit % patch for limit in limits):
            yield "preprocessing", "native, with limits of whole patches"
        if not getattr(plan.abstractor, "bias", True):
            yield "abstractor", "linear, with a bias"
        expected = {
            "row_end": ROW_END, "last_row_end": None, "start": None, "overview_start": None, "end": None,
            "placeholder": None, "bos": "after_images", "bos_token": BEGIN,
        }  # fmt: skip
        if any(getattr(plan.writing, name, value) != value for name, value in expected.items()) or model.image_token != PATCH:
            yield "writing", f"rows with {ROW_END} after each row, the image token {PATCH}, and {BEGIN} after the images"
        if not writes_like(model.tokenizer, TEMPLATE, PATCH) or not _begins_with_a_blank(model.tokenizer):
            yield "language", "the tokenizer of a published Fuyu, and prompts as in the recipe fuyu"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return FuyuForCausalLM

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, facts = self.text_config(model), model.plan.facts
        bos: dict[str, Any] = {"bos_token_id": model.tokenizer.convert_tokens_to_ids(BEGIN)}  # vLLM reads it here
        return FuyuConfig(
            text_config=text, patch_size=facts.patch_size, image_size=facts.image_size, image_token_id=model.image_token_id,
            tie_word_embeddings=text.tie_word_embeddings, dtype=next(model.parameters()).dtype, **bos,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. It takes one image, and the text that the tokenizer's chat template writes."""
        part = model.plan.preprocessing
        sizes: dict[str, Any] = {
            "size": {"height": part.max_height, "width": part.max_width}, "patch_size": square(model.plan.facts.patch_size),
        }  # fmt: skip
        images = FuyuImageProcessor(**sizes, **pixel_options(model.plan))
        tokenizer = _with_pieces(model.tokenizer)
        tokenizer.chat_template = SERVED
        return FuyuProcessor(images, tokenizer)


def _with_pieces(tokenizer: Any) -> Any:
    """Return a copy of a tokenizer without the tokens of images as special tokens. They stay pieces of the vocabulary."""
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    facts["added_tokens"] = [token for token in facts["added_tokens"] if token["content"] not in (PATCH, ROW_END)]
    names = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(facts)), **names)


def _begins_with_a_blank(tokenizer: Any) -> bool:
    """Return whether a tokenizer, as exported, writes one token before the tokens of an image, which the processor drops."""
    expected = tokenizer.convert_tokens_to_ids([PATCH, PATCH, ROW_END, BEGIN])
    ids = _with_pieces(tokenizer)(PATCH + PATCH + ROW_END + BEGIN, add_special_tokens=False)["input_ids"]
    return len(ids) == len(expected) + 1 and ids[1:] == expected
