"""Tiny published models of several families, made here: a folder as transformers saves it, with weights at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Qwen2VLImageProcessor,
)

from tests.train.made import TEXT, Made, special_ids, tokenizer_with
from tests.train.made_cross import CROSS
from tests.train.made_instruct import INSTRUCT
from tests.train.made_kosmos import KOSMOS
from tests.train.made_llava import LLAVA
from tests.train.made_molmo import MOLMO
from tests.train.made_more import MORE
from tests.train.made_tiled import TILED
from tests.train.made_whole import WHOLE
from tests.train.shapes import QWEN2
from tests.train.tiny import randomise
from vlmdata_train.convert.families.qwen2_5_vl import Qwen25Vl
from vlmdata_train.convert.families.qwen2_vl import Qwen2Vl
from vlmdata_train.convert.families.qwen3_vl import Qwen3Vl

QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


VIDEO_PART = (
    "{% else %}{{ c['text'] }}",
    "{% elif c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}",
)
QWEN_TOWER = {"hidden_size": 32, "intermediate_size": 40, "out_hidden_size": 32}


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
        lambda: tokenizer_with(*QWEN_TOKENS, template=QWEN2.replace(*VIDEO_PART)),
    )  # fmt: skip


FAMILIES: dict[str, Made] = {
    "Qwen2-VL": qwen(Qwen2Vl(), {"depth": 2, "embed_dim": 32, "mlp_ratio": 2, "hidden_size": 32}),
    "Qwen2.5-VL": qwen(Qwen25Vl(), {**QWEN_TOWER, "depth": 3, "window_size": 16, "fullatt_block_indexes": [1]}),
    "Qwen3-VL": qwen(
        Qwen3Vl(), {**QWEN_TOWER, "depth": 4, "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2]}, head_dim=16
    ),
    **LLAVA,
    **INSTRUCT,
    **TILED,
    **CROSS,
    **WHOLE,
    **MORE,
    **MOLMO,
    **KOSMOS,
}


def write_published(name: str, folder: Path, *, max_shard_size: str = "5GB", dtype: torch.dtype = torch.float32) -> Path:
    """Write the folder of a tiny published model with its processor."""
    made = FAMILIES[name]
    if made.needs is not None:
        pytest.importorskip(made.needs)
    tokenizer = made.tokenizer()
    model = made.model(tokenizer).eval()
    randomise(model, seed=1, scale=0.25)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    if made.finish is not None:
        made.finish(folder, model)
    made.processor(tokenizer).save_pretrained(folder)
    return folder
