"""Tiny published models of DeepSeek-VL, with one tower and hybrid, and of Fuyu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridImageProcessor,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    FuyuConfig,
    FuyuForCausalLM,
    FuyuImageProcessor,
    FuyuProcessor,
)

from tests.train.families import tokenizer_of
from tests.train.made import HALF, PARTS_TEMPLATE, TEXT, VISION, Made, in_text, special_ids, tokenizer_with
from vlmdata_train.convert.served import with_named_tokens

PLACEHOLDER = "<image_placeholder>"
SQUARE = {"height": 16, "width": 16}
SAM = {
    "model_type": "sam_vision_model", "hidden_size": 32, "output_channels": 6, "num_hidden_layers": 4, "num_attention_heads": 4,
    "image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1, 3], "mlp_dim": 40,
}  # fmt: skip


def deepseek_model(config: Any, kind: Any, **options: Any) -> Callable[[Any], Any]:
    """Return a function that makes a DeepSeek-VL with 16 tokens an image."""
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4}
    return lambda tokenizer: kind(in_text(
        config, tokenizer, {"model_type": "llama"}, PLACEHOLDER, vision_config=vision, **options
    ))  # fmt: skip


def deepseek_processor(kind: Any, images: Any) -> Callable[[Any], Any]:
    """Return a function that makes a processor of DeepSeek-VL. `images` is its image processor."""
    return lambda tokenizer: kind(
        images, with_named_tokens(tokenizer, image_token=PLACEHOLDER), num_image_tokens=16,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def deepseek_tokenizer() -> Any:
    """Return a tokenizer of DeepSeek-VL."""
    return tokenizer_with("<end_of_utterance>", PLACEHOLDER, template=PARTS_TEMPLATE.replace("IMAGE", PLACEHOLDER))


def fuyu_model(tokenizer: Any) -> Any:
    """Return a Fuyu with patches of 4 px."""
    text = {name: value for name, value in TEXT.items() if name != "num_key_value_heads"}
    return FuyuForCausalLM(FuyuConfig(
        text_config={**text, **special_ids(tokenizer), "model_type": "persimmon", "vocab_size": 384}, patch_size=4,
        image_token_id=tokenizer.convert_tokens_to_ids("|SPEAKER|"), bos_token_id=tokenizer.convert_tokens_to_ids("<s>"),
    ))  # fmt: skip


def fuyu_processor(tokenizer: Any) -> Any:
    """Return a processor of Fuyu for images of at most 60 x 80 px."""
    images = FuyuImageProcessor(size={"height": 60, "width": 80}, patch_size={"height": 4, "width": 4})
    return FuyuProcessor(images, tokenizer)


def fuyu_tokenizer() -> Any:
    """Return a tokenizer of Fuyu's kind. `<s>` is not its BOS, and it adds the BOS token to each text."""
    return tokenizer_of("fuyu", ["<s>"], bos="|ENDOFTEXT|", eos="|ENDOFTEXT|", adds_bos=True)


MORE: dict[str, Made] = {
    "DeepSeek-VL": Made(
        deepseek_model(DeepseekVLConfig, DeepseekVLForConditionalGeneration),
        deepseek_processor(DeepseekVLProcessor, DeepseekVLImageProcessor(size=SQUARE, **HALF)), deepseek_tokenizer,
    ),
    "DeepSeek-VL, hybrid": Made(
        deepseek_model(DeepseekVLHybridConfig, DeepseekVLHybridForConditionalGeneration, high_res_vision_config=SAM),
        deepseek_processor(
            DeepseekVLHybridProcessor,
            DeepseekVLHybridImageProcessor(size=SQUARE, high_res_size={"height": 64, "width": 64}, **HALF),
        ),
        deepseek_tokenizer,
    ),
    "Fuyu": Made(
        fuyu_model, fuyu_processor, fuyu_tokenizer, images=(1,),  # the processor writes no `<0x04>` without an image
        prompt="What is it?\n", backend="torchvision",
    ),
}  # fmt: skip
