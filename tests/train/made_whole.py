"""Tiny published models of families that show each image whole, and of Idefics2 also in crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPImageProcessor,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    SiglipImageProcessor,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from tests.train.made import HALF, PARTS_TEMPLATE, VISION, Made, in_text, special_ids, tokenizer_with
from tests.train.made_tiled import IDEFICS_TOKENS

OPT = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
       "vocab_size": 320, "word_embed_proj_dim": 32}  # fmt: skip
PIXTRAL_TOKENS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "<end_of_utterance>")


def idefics2_model(tokenizer: Any) -> Any:
    """Return an Idefics2 with 5 latents."""
    perceiver = {"hidden_size": 32, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4,
                 "num_key_value_heads": 2, "resampler_head_dim": 6}  # fmt: skip
    vision = {**VISION, "image_size": 48, "patch_size": 4}
    return Idefics2ForConditionalGeneration(in_text(
        Idefics2Config, tokenizer, {"model_type": "mistral"}, "<image>", vision_config=vision, perceiver_config=perceiver
    ))  # fmt: skip


def idefics2_processor(split: bool) -> Callable[[Any], Any]:
    """Return a function that makes a processor of Idefics2."""
    size = {"shortest_edge": 18, "longest_edge": 48}
    return lambda tokenizer: Idefics2Processor(
        Idefics2ImageProcessor(size=size, do_image_splitting=split), tokenizer, image_seq_len=5,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def pixtral_model(config: Any, kind: Any, **options: Any) -> Callable[[Any], Any]:
    """Return a function that makes a Pixtral or a Mistral 3."""
    vision = {**VISION, "model_type": "pixtral", "image_size": 48, "patch_size": 4, "head_dim": 8}
    return lambda tokenizer: kind(in_text(
        config, tokenizer, {"model_type": "mistral"}, "[IMG]", vision_config=vision, vision_feature_layer=-1, **options
    ))  # fmt: skip


def pixtral_processor(square: int) -> Callable[[Any], Any]:
    """Return a function that makes a processor of Pixtral, or of Mistral 3 for squares of 2 patches."""
    return lambda tokenizer: PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": 48}, patch_size={"height": 4, "width": 4}), tokenizer, patch_size=4,
        spatial_merge_size=square, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def vipllava_model(tokenizer: Any) -> Any:
    """Return a ViP-LLaVA that reads two layers."""
    vision = {**VISION, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 4}
    return VipLlavaForConditionalGeneration(in_text(
        VipLlavaConfig, tokenizer, {"model_type": "llama"}, "<image>", vision_config=vision, vision_feature_layer=[-1, -2],
        image_seq_length=16,
    ))  # fmt: skip


def vipllava_processor(tokenizer: Any) -> Any:
    """Return a processor of ViP-LLaVA."""
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return LlavaProcessor(
        images, tokenizer, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def blip2_model(tokenizer: Any) -> Any:
    """Return a BLIP-2 over an OPT."""
    vision = {**VISION, "image_size": 16, "patch_size": 4}
    q_former = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30}
    text = {**OPT, **special_ids(tokenizer)}
    return Blip2ForConditionalGeneration(Blip2Config(
        vision_config=vision, qformer_config=q_former, text_config=text, num_query_tokens=5,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    ))  # fmt: skip


def with_bos(tokenizer: Any) -> Any:
    """Return a tokenizer that adds BOS to each text."""
    tokenizer.add_bos_token = True
    return tokenizer


def paligemma_model(**text: Any) -> Callable[[Any], Any]:
    """Return a function that makes a PaliGemma with 16 tokens an image. `text` are entries of its language model."""
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4, "vision_use_head": False}
    sizes = {"vocab_size": 1472, "projection_dim": 32, "hidden_size": 32}

    def made(tokenizer: Any) -> Any:
        PaliGemmaProcessor(paligemma_images(), tokenizer)  # adds tokens to the tokenizer
        words = {"head_dim": 8, "vocab_size": 1472, **text}
        return PaliGemmaForConditionalGeneration(in_text(
            PaliGemmaConfig, tokenizer, words, "<image>", vision_config=vision, **sizes
        ))  # fmt: skip

    return made


def paligemma_images() -> Any:
    """Return the image processor of a PaliGemma."""
    images = SiglipImageProcessor(size={"height": 16, "width": 16}, **HALF)
    images.image_seq_length = 16
    return images


WHOLE: dict[str, Made] = {
    **{
        f"Idefics2{' in crops' if split else ''}": Made(
            idefics2_model, idefics2_processor(split),
            lambda: tokenizer_with(*IDEFICS_TOKENS, template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
        )
        for split in (False, True)
    },
    "Pixtral": Made(
        pixtral_model(LlavaConfig, LlavaForConditionalGeneration, vision_feature_select_strategy="full"),
        pixtral_processor(1),
        lambda: tokenizer_with(*PIXTRAL_TOKENS, template=PARTS_TEMPLATE.replace("IMAGE", "[IMG]")),
    ),
    "Mistral 3": Made(
        pixtral_model(Mistral3Config, Mistral3ForConditionalGeneration), pixtral_processor(2),
        lambda: tokenizer_with(*PIXTRAL_TOKENS, template=PARTS_TEMPLATE.replace("IMAGE", "[IMG]")),
    ),
    "ViP-LLaVA": Made(
        vipllava_model, vipllava_processor,
        lambda: tokenizer_with("<end_of_utterance>", template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
    ),
    "BLIP-2": Made(
        blip2_model,
        lambda tokenizer: Blip2Processor(
            BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer, num_query_tokens=5
        ),
        lambda: with_bos(tokenizer_with(template=None)), images=(1,),  # transformers generates only with one image
        prompt="Question: What is it? Answer:",
    ),
    **{
        name: Made(
            paligemma_model(**text), lambda tokenizer: PaliGemmaProcessor(paligemma_images(), tokenizer),
            lambda: tokenizer_with(template=None), images=(1, 3),  # the processor needs an image
        )
        for name, text in {
            "PaliGemma": {"model_type": "gemma"},
            # a window that is shorter than the prompt, and caps that change scores and logits
            "PaliGemma 2": {
                "model_type": "gemma2", "sliding_window": 6, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
            },
        }.items()
    },
}  # fmt: skip
