"""Tiny published models of families that cut images into tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    GotOcr2ImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tests.train.made import HALF, PARTS_TEMPLATE, TEXT, VISION, Made, in_text, special_ids, tokenizer_with
from vlmdata_train.convert.families.idefics3 import Idefics3
from vlmdata_train.convert.families.smolvlm import SmolVlm
from vlmdata_train.convert.served import with_named_tokens
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD

IDEFICS_TOKENS = ("<fake_token_around_image>", "<end_of_utterance>")


TILE_TOKENS = ("<global-img>", *(f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)))


PINPOINTS = [[16, 16], [16, 32], [32, 16], [32, 32]]


MLLAMA_TEMPLATE = (  # images first, because in transformers text before the first image reads all images of the sample
    "{% for m in messages %}{% set first = loop.first %}{% if m['content'] is not string %}{% for c in m['content'] %}"
    "{{ '<|image|>' if c['type'] == 'image' }}{% endfor %}{% endif %}{{ bos_token if first }}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' }}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def internvl_model(tokenizer: Any) -> Any:
    """Return an InternVL with tiles of 16 px and 4 tokens a tile."""
    vision = {**VISION, "image_size": [16, 16], "patch_size": [4, 4], "use_mean_pooling": False}
    return InternVLForConditionalGeneration(in_text(
        InternVLConfig, tokenizer, {"model_type": "qwen2"}, "<IMG_CONTEXT>", vision_config=vision, image_seq_length=4
    ))  # fmt: skip


def internvl_processor(tokenizer: Any) -> Any:
    """Return a processor of InternVL for up to 4 tiles."""
    size = {"height": 16, "width": 16}
    names = {"start": "<img>", "end": "</img>", "context": "<IMG_CONTEXT>"}
    tokenizer = with_named_tokens(
        tokenizer, video_token="<video>", **{f"{name}_image_token": token for name, token in names.items()}
    )
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, max_patches=4, crop_to_patches=True),
        video_processor=InternVLVideoProcessor(size=size), tokenizer=tokenizer, image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def idefics3_model(family: Idefics3, factor: int) -> Callable[[Any], Any]:
    """Return a function that makes an Idefics3 or a SmolVLM with tiles of 48 px."""
    vision = {**VISION, "image_size": 48, "patch_size": 4}
    return lambda tokenizer: family.their_class(in_text(
        family.their_config, tokenizer, {"model_type": "llama"}, "<image>", vision_config=vision, scale_factor=factor,
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def idefics3_processor(factor: int) -> Callable[[Any], Any]:
    """Return a function that makes a processor of Idefics3, or of SmolVLM for a factor above 2."""
    options = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 48}}

    def made(tokenizer: Any) -> Any:
        common = {"image_seq_len": (12 // factor) ** 2, "chat_template": tokenizer.chat_template}
        if factor == 2:
            return Idefics3Processor(Idefics3ImageProcessor(**options), tokenizer, **common)
        videos = SmolVLMVideoProcessor(**{**options, "size": {"longest_edge": 48}})
        return SmolVLMProcessor(SmolVLMImageProcessor(**options), tokenizer, videos, **common)

    return made


def onevision_model(tokenizer: Any) -> Any:
    """Return a LLaVA-OneVision with tiles of 16 px, of which it keeps the tokens of 2."""
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4, "vision_use_head": False}
    return LlavaOnevisionForConditionalGeneration(in_text(
        LlavaOnevisionConfig, tokenizer, {"model_type": "qwen2"}, "<image>", vision_config=vision,
        image_grid_pinpoints=PINPOINTS, vision_aspect_ratio="anyres_max_2",
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    ))  # fmt: skip


def onevision_processor(tokenizer: Any) -> Any:
    """Return a processor of LLaVA-OneVision."""
    size = {"height": 16, "width": 16}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS, **HALF),
        video_processor=LlavaOnevisionVideoProcessor(size=size, **HALF), tokenizer=tokenizer, num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=tokenizer.chat_template, vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip


def mllama_model(tokenizer: Any) -> Any:
    """Return a Llama 3.2 Vision. Its image token is the first id after the vocabulary, as in the published models."""
    vision = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_global_layers": 1,
              "attention_heads": 4, "image_size": 16, "patch_size": 4, "intermediate_layers_indices": [0, 2],
              "vision_output_dim": 96}  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    text = {**TEXT, **special_ids(tokenizer), "num_hidden_layers": 6, "cross_attention_layers": [1, 4], "vocab_size": image,
            "rope_parameters": rope}  # fmt: skip
    return MllamaForConditionalGeneration(MllamaConfig(vision_config=vision, text_config=text, image_token_index=image))


def mllama_processor(tokenizer: Any) -> Any:
    """Return a processor of Llama 3.2 Vision."""
    images = MllamaImageProcessor(size={"height": 16, "width": 16}, image_mean=CLIP_MEAN, image_std=CLIP_STD)
    return MllamaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


TILED: dict[str, Made] = {
    "InternVL": Made(
        internvl_model, internvl_processor, lambda: tokenizer_with(
            "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
            template=PARTS_TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\\n").replace("<video>", "<video>\\n"),
        ),
    ),
    "Idefics3": Made(
        idefics3_model(Idefics3(), 2), idefics3_processor(2),
        lambda: tokenizer_with(*IDEFICS_TOKENS, *TILE_TOKENS, template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
    ),
    "SmolVLM": Made(
        idefics3_model(SmolVlm(), 4), idefics3_processor(4),
        lambda: tokenizer_with(*IDEFICS_TOKENS, *TILE_TOKENS, template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
        needs="num2words",
    ),
    "LLaVA-OneVision": Made(
        onevision_model, onevision_processor,
        lambda: tokenizer_with("<end_of_utterance>", "<video>", template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
    ),
    "Llama 3.2 Vision": Made(
        mllama_model, mllama_processor,
        lambda: tokenizer_with("<|python_tag|>", "<|image|>", template=MLLAMA_TEMPLATE),
    ),
}  # fmt: skip
