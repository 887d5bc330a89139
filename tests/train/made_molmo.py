"""A tiny published Molmo 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
)

from tests.train.made import TEXT, VISION, Made, special_ids, tokenizer_with

TURNS = ("<|im_start|>", "<|im_end|>")
TOKENS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<|image|>", "<im_low>", "<frame_start>",
          "<frame_end>", "<|video|>")  # fmt: skip
TABLES = ("model.transformer.wte.embedding", "model.transformer.wte.new_embedding")
# In the form of the published one: all images are first, numbered if there are several. An answer ends where the next question
# begins, so the last one has no end. BOS is the processor's.
TEMPLATE = (
    "{% set images = namespace(count=0) %}{% for m in messages %}{% if m['content'] is not string %}"
    "{% for c in m['content'] if c['type'] == 'image' %}{% set images.count = images.count + 1 %}{% endfor %}"
    "{% endif %}{% endfor %}{% for n in range(images.count) %}"
    "{{ ('Image ' ~ (n + 1) if images.count > 1 else '') ~ '<|image|>' }}{% endfor %}"
    "{% for m in messages %}{{ '<|im_end|>\n' if m['role'] == 'user' and not loop.first }}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' if m['role'] == 'user' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def molmo_tokenizer() -> Any:
    """Return a tokenizer in which one token is BOS and EOS, as in the published models."""
    tokenizer = tokenizer_with(*TURNS, *TOKENS, template=TEMPLATE)
    tokenizer.bos_token = tokenizer.eos_token = TURNS[1]
    return tokenizer


def molmo_model(tokenizer: Any) -> Any:
    """Return a Molmo 2 with crops of 24 px. Its tokens of images are the first ids after the output layer, as published."""
    rows, heads = tokenizer.convert_tokens_to_ids(TOKENS[0]), VISION["num_attention_heads"]
    shape = {"hidden_size": VISION["hidden_size"], "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 8}
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<{token}>") for name, token in [
            ("image_start", "im_start"), ("image_end", "im_end"), ("low_res_image_start", "low_res_im_start"),
            ("frame_start", "frame_start"), ("frame_end", "frame_end"),
        ]
    }  # fmt: skip
    return Molmo2ForConditionalGeneration(Molmo2Config(
        vision_config={**VISION, **shape, "num_hidden_layers": 3, "image_size": [24, 24], "patch_size": 4},
        adapter_config={**shape, "vision_feature_layer": [2, 0], "intermediate_size": 40, "text_hidden_size": 32},
        text_config={
            **TEXT, **special_ids(tokenizer), "head_dim": 8, "vocab_size": rows,
            "additional_vocab_size": TEXT["vocab_size"] - rows,
        },
        image_patch_id=tokenizer.convert_tokens_to_ids("<im_patch>"), **ids,
    ))  # fmt: skip


def molmo_processor(tokenizer: Any) -> Any:
    """Return a processor of Molmo 2 for up to 4 crops, with the settings of the published ones."""
    options = {"size": {"height": 24, "width": 24}, "patch_size": 4}
    images = Molmo2ImageProcessor(**options, overlap_margins=[1, 1], max_crops=4)
    return Molmo2Processor(
        images, Molmo2VideoProcessor(**options), tokenizer, chat_template=tokenizer.chat_template,
        use_single_crop_col_tokens=False,
    )  # fmt: skip


def divide_tables(folder: Path, rows: int) -> None:
    """Divide the table of embeddings after `rows` rows, as in the published files. transformers writes two halves."""
    files = {path: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    both = torch.cat([tensors[name] for name in TABLES for tensors in files.values() if name in tensors])
    for path, tensors in files.items():
        own = dict(zip(TABLES, (both[:rows].clone(), both[rows:].clone()), strict=True))
        save_file({name: own.get(name, value) for name, value in tensors.items()}, path, metadata={"format": "pt"})


MOLMO: dict[str, Made] = {
    "Molmo 2": Made(
        molmo_model, molmo_processor, molmo_tokenizer,
        finish=lambda folder, model: divide_tables(folder, model.config.text_config.vocab_size),
    ),
}  # fmt: skip
