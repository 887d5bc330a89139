"""Tiny published models of several families, made here: a folder as transformers saves it, with weights at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPImageProcessor,
    GotOcr2ImageProcessor,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2VLImageProcessor,
    SiglipImageProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from tests.train.shapes import QWEN2
from tests.train.tiny import randomise
from vlmdata_train.convert.families.idefics3 import Idefics3
from vlmdata_train.convert.families.qwen2_5_vl import Qwen25Vl
from vlmdata_train.convert.families.qwen2_vl import Qwen2Vl
from vlmdata_train.convert.families.qwen3_vl import Qwen3Vl
from vlmdata_train.convert.families.smolvlm import SmolVlm
from vlmdata_train.convert.served import with_named_tokens
from vlmdata_train.model.tokens import byte_tokenizer
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 320, "max_position_embeddings": 2048,
}  # fmt: skip


def tokenizer_with(*names: str, template: str | None) -> Any:
    """Return a tokenizer of bytes with these special tokens and this chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.chat_template = template
    return tokenizer


def special_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the ids of the special tokens for a configuration."""
    names = ("bos", "eos", "pad")
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


@dataclass(frozen=True)
class Made:
    """One family: how its tiny model and its processor are made."""

    model: Callable[[Any], Any]  # from the tokenizer
    processor: Callable[[Any], Any]
    tokenizer: Callable[[], Any]
    images: tuple[int, ...] = (0, 1, 3)  # how many images the questions of the comparison have
    prompt: str | None = None  # a prompt for `What is it?`, if the processor has no chat template and writes the images itself
    needs: str | None = None  # a package without which transformers has no processor of this family


def qwen_model(family: Qwen2Vl, vision: dict[str, Any], **text: Any) -> Callable[[Any], Any]:
    """Return a function that makes a Qwen2-VL, Qwen2.5-VL or Qwen3-VL."""
    sections = [4, 2, 2] if family.rope else [1, 1, 2]
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": sections, **family.rope}

    def made(tokenizer: Any) -> Any:
        ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in [
            ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"),
        ]}  # fmt: skip
        words = {**TEXT, "rope_parameters": rope, **special_ids(tokenizer), **text}
        return family.their_class(family.their_config(vision_config=vision, text_config=words, **ids))

    return made


def qwen_processor(family: Qwen2Vl) -> Callable[[Any], Any]:
    """Return a function that makes a processor of Qwen's models for small images."""
    mean, std = (list(numbers) for numbers in family.normalisation)
    size = {"shortest_edge": 128, "longest_edge": 1024}
    options = {"patch_size": 4, "size": size, "image_mean": mean, "image_std": std}
    return lambda tokenizer: family.their_processor(
        image_processor=Qwen2VLImageProcessor(**options), video_processor=family.their_videos(**options),
        tokenizer=tokenizer, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def qwen(family: Qwen2Vl, vision: dict[str, Any], **text: Any) -> Made:
    """Return how a family of Qwen is made. `text` are entries of its language model."""
    return Made(
        qwen_model(family, {"num_heads": 4, "patch_size": 4, **vision}, **text), qwen_processor(family),
        lambda: tokenizer_with(*QWEN_TOKENS, template=QWEN2),
    )  # fmt: skip


def in_text(config: Any, tokenizer: Any, text: dict[str, Any], image: str, **options: Any) -> Any:
    """Return a configuration with a language model and the id of the image token."""
    ids = {**special_ids(tokenizer), "tie_word_embeddings": False}
    return config(
        text_config={**TEXT, **ids, **text}, image_token_id=tokenizer.convert_tokens_to_ids(image),
        tie_word_embeddings=False, **options,
    )  # fmt: skip


PARTS_TEMPLATE = (  # a template in the form of Idefics3's, with a line end between an image and a text
    "{% for m in messages %}{{ m['role'] | capitalize }}:{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ 'IMAGE' if c['type'] == 'image' else c['text'] }}"
    "{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


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


PIXTRAL_TOKENS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "<end_of_utterance>")
IDEFICS_TOKENS = ("<fake_token_around_image>", "<end_of_utterance>")
TILE_TOKENS = ("<global-img>", *(f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)))


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


def onevision_model(tokenizer: Any) -> Any:
    """Return a LLaVA-OneVision with tiles of 16 px, of which it keeps the tokens of 2."""
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4, "vision_use_head": False}
    return LlavaOnevisionForConditionalGeneration(in_text(
        LlavaOnevisionConfig, tokenizer, {"model_type": "qwen2"}, "<image>", vision_config=vision,
        image_grid_pinpoints=PINPOINTS, vision_aspect_ratio="anyres_max_2",
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    ))  # fmt: skip


PINPOINTS = [[16, 16], [16, 32], [32, 16], [32, 32]]


def onevision_processor(tokenizer: Any) -> Any:
    """Return a processor of LLaVA-OneVision."""
    size = {"height": 16, "width": 16}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS, **HALF),
        video_processor=LlavaOnevisionVideoProcessor(size=size, **HALF), tokenizer=tokenizer, num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=tokenizer.chat_template, vision_aspect_ratio="anyres_max_2",
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


MLLAMA_TEMPLATE = (  # images first, because in transformers text before the first image reads all images of the sample
    "{% for m in messages %}{% set first = loop.first %}{% if m['content'] is not string %}{% for c in m['content'] %}"
    "{{ '<|image|>' if c['type'] == 'image' }}{% endfor %}{% endif %}{{ bos_token if first }}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' }}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


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


def blip2_model(tokenizer: Any) -> Any:
    """Return a BLIP-2 over an OPT."""
    vision = {**VISION, "image_size": 16, "patch_size": 4}
    q_former = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30}
    text = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 320, "word_embed_proj_dim": 32, **special_ids(tokenizer)}  # fmt: skip
    return Blip2ForConditionalGeneration(Blip2Config(
        vision_config=vision, qformer_config=q_former, text_config=text, num_query_tokens=5,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    ))  # fmt: skip


def with_bos(tokenizer: Any) -> Any:
    """Return a tokenizer that adds BOS to each text."""
    tokenizer.add_bos_token = True
    return tokenizer


def paligemma_model(tokenizer: Any) -> Any:
    """Return a PaliGemma with 16 tokens an image."""
    PaliGemmaProcessor(paligemma_images(), tokenizer)  # adds tokens to the tokenizer
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4, "vision_use_head": False}
    text = {"model_type": "gemma", "head_dim": 8, "vocab_size": 1472}
    sizes = {"vocab_size": 1472, "projection_dim": 32, "hidden_size": 32}
    return PaliGemmaForConditionalGeneration(in_text(
        PaliGemmaConfig, tokenizer, text, "<image>", vision_config=vision, **sizes
    ))  # fmt: skip


def paligemma_images() -> Any:
    """Return the image processor of a PaliGemma."""
    images = SiglipImageProcessor(size={"height": 16, "width": 16}, **HALF)
    images.image_seq_length = 16
    return images


QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_TOWER = {"hidden_size": 32, "intermediate_size": 40, "out_hidden_size": 32}
FAMILIES: dict[str, Made] = {
    "Qwen2-VL": qwen(Qwen2Vl(), {"depth": 2, "embed_dim": 32, "mlp_ratio": 2, "hidden_size": 32}),
    "Qwen2.5-VL": qwen(Qwen25Vl(), {**QWEN_TOWER, "depth": 3, "window_size": 16, "fullatt_block_indexes": [1]}),
    "Qwen3-VL": qwen(
        Qwen3Vl(), {**QWEN_TOWER, "depth": 4, "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2]}, head_dim=16
    ),
    "InternVL": Made(
        internvl_model, internvl_processor, lambda: tokenizer_with(
            "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
            template=PARTS_TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\\n"),
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
    "LLaVA-OneVision": Made(
        onevision_model, onevision_processor,
        lambda: tokenizer_with("<end_of_utterance>", "<video>", template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
        images=(0, 1),  # transformers shows several images of a sample without tiles
    ),
    "ViP-LLaVA": Made(
        vipllava_model, vipllava_processor,
        lambda: tokenizer_with("<end_of_utterance>", template=PARTS_TEMPLATE.replace("IMAGE", "<image>")),
    ),
    "Llama 3.2 Vision": Made(
        mllama_model, mllama_processor,
        lambda: tokenizer_with("<|python_tag|>", "<|image|>", template=MLLAMA_TEMPLATE),
    ),
    "BLIP-2": Made(
        blip2_model,
        lambda tokenizer: Blip2Processor(
            BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer, num_query_tokens=5
        ),
        lambda: with_bos(tokenizer_with(template=None)), images=(1,),  # transformers generates only with one image
        prompt="Question: What is it? Answer:",
    ),
    "PaliGemma": Made(
        paligemma_model, lambda tokenizer: PaliGemmaProcessor(paligemma_images(), tokenizer),
        lambda: tokenizer_with(template=None), images=(1, 3),  # the processor needs an image
    ),
}  # fmt: skip


def write_published(name: str, folder: Path, *, max_shard_size: str = "5GB", dtype: torch.dtype = torch.float32) -> Path:
    """Write the folder of a tiny published model with its processor."""
    made = FAMILIES[name]
    if made.needs is not None:
        pytest.importorskip(made.needs)
    tokenizer = made.tokenizer()
    model = made.model(tokenizer).eval()
    randomise(model, seed=1, scale=0.25)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    made.processor(tokenizer).save_pretrained(folder)
    return folder
