"""Tiny published models of several families, made here: a folder as transformers saves it, with weights at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.train.shapes import QWEN2
from tests.train.tiny import randomise
from vlmdata_train.model.tokens import byte_tokenizer

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 320, "max_position_embeddings": 2048,
}  # fmt: skip


def tokenizer_with(*names: str, template: str) -> Any:
    """Return a tokenizer of bytes with these special tokens and this chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.chat_template = template
    return tokenizer


@dataclass(frozen=True)
class Made:
    """One family: how its tiny model and its processor are made."""

    model: Callable[[Any], Any]  # from the tokenizer
    processor: Callable[[Any], Any]
    tokenizer: Callable[[], Any]


def qwen2_vl_model(tokenizer: Any) -> Any:
    """Return a Qwen2-VL."""
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in [
        ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"),
    ]}  # fmt: skip
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4, "hidden_size": 32}
    config = Qwen2VLConfig(vision_config=vision, text_config={**TEXT, "rope_parameters": rope, **special}, **ids)
    return Qwen2VLForConditionalGeneration(config)


def qwen2_vl_processor(tokenizer: Any) -> Any:
    """Return a processor of Qwen2-VL for small images."""
    options = {"patch_size": 4, "size": {"shortest_edge": 128, "longest_edge": 1024}}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**options), video_processor=Qwen2VLVideoProcessor(**options),
        tokenizer=tokenizer, chat_template=tokenizer.chat_template,
    )  # fmt: skip


QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
FAMILIES: dict[str, Made] = {
    "Qwen2-VL": Made(qwen2_vl_model, qwen2_vl_processor, lambda: tokenizer_with(*QWEN_TOKENS, template=QWEN2)),
}


def write_published(name: str, folder: Path, *, max_shard_size: str = "5GB", dtype: torch.dtype = torch.float32) -> Path:
    """Write the folder of a tiny published model with its processor."""
    made = FAMILIES[name]
    tokenizer = made.tokenizer()
    model = made.model(tokenizer).eval()
    randomise(model, seed=1, scale=0.25)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    made.processor(tokenizer).save_pretrained(folder)
    return folder
