"""Tiny published models of LLaVA 1.5 and LLaVA-NeXT."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
)

from tests.train.made import PARTS_TEMPLATE, VISION, Made, in_text, tokenizer_with
from tests.train.made_tiled import PINPOINTS

TOWER = {**VISION, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 4}
SIZES: dict[str, Any] = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


def model(tokenizer: Any) -> Any:
    """Return a LLaVA 1.5."""
    return LlavaForConditionalGeneration(
        in_text(LlavaConfig, tokenizer, {"model_type": "llama"}, "<image>", vision_config=TOWER, image_seq_length=16)
    )


def next_model(tokenizer: Any) -> Any:
    """Return a LLaVA-NeXT with tiles of 16 px."""
    return LlavaNextForConditionalGeneration(in_text(
        LlavaNextConfig, tokenizer, {"model_type": "mistral"}, "<image>", vision_config=TOWER, image_seq_length=16,
        image_grid_pinpoints=PINPOINTS,
    ))  # fmt: skip


def processor(tokenizer: Any) -> Any:
    """Return a processor of LLaVA 1.5."""
    return LlavaProcessor(
        CLIPImageProcessor(**SIZES), tokenizer, patch_size=4, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def next_processor(tokenizer: Any) -> Any:
    """Return a processor of LLaVA-NeXT."""
    return LlavaNextProcessor(
        LlavaNextImageProcessor(**SIZES, image_grid_pinpoints=PINPOINTS), tokenizer, patch_size=4,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def words() -> Any:
    """Return the tokenizer of both."""
    return tokenizer_with("<end_of_utterance>", template=PARTS_TEMPLATE.replace("IMAGE", "<image>"))


LLAVA: dict[str, Made] = {
    "LLaVA 1.5": Made(model, processor, words), "LLaVA-NeXT": Made(next_model, next_processor, words),
}  # fmt: skip
