"""Tiny InternVL models, written in InternVL's original layout and in that of transformers, with the same weights.

The names, the keys and the packing of weights follow InternVL's public code, independently of the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from tests.train.made import TEXT, VISION, in_text, tokenizer_with
from tests.train.original_files import save_weights
from tests.train.tiny import randomise
from vlmdata_train.convert.served import with_named_tokens

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# transformers' name in memory: InternVL's name
OUTER = {
    "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
    "model.vision_tower.embeddings.patch_embeddings.projection": "vision_model.embeddings.patch_embedding",
    "model.vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
    "model.multi_modal_projector.layer_norm": "mlp1.0",
    "model.multi_modal_projector.linear_1": "mlp1.1",
    "model.multi_modal_projector.linear_2": "mlp1.3",
}
LAYER = {  # within a layer of the tower
    "attention.projection_layer": "attn.proj", "attention.q_norm": "attn.q_norm", "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1", "layernorm_after": "norm2", "lambda_1": "ls1", "lambda_2": "ls2",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
INTERNLM2 = {  # Llama's name within a layer: InternLM2's
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
# The InternViT of 300 million and that of 6 billion weights: transformers' entries.
SMALL = {"attention_bias": True, "use_qk_norm": False, "norm_type": "layer_norm"}
LARGE = {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm"}


@dataclass(frozen=True)
class Written:
    """How a model is written in the original layout."""

    architecture: str
    text: Mapping[str, Any]  # transformers' entries of the language model
    llm: Mapping[str, Any] = field(default_factory=dict)  # more entries of `llm_config`
    tower: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    template: str = "internvl2_5"
    end: str = "<|im_end|>\n"  # what ends a turn in this template


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 50_000.0, "factor": 2.0}
WRITTEN: dict[str, Written] = {
    "Qwen2": Written("Qwen2ForCausalLM", {"model_type": "qwen2"}, template="Hermes-2", end="<|im_end|>"),
    "Qwen3": Written("Qwen3ForCausalLM", {"model_type": "qwen3", "head_dim": 16}, {"head_dim": 16}),
    "Llama, with the tower of 6 billion weights": Written("LlamaForCausalLM", {"model_type": "llama"}, tower=LARGE),
    "InternLM2": Written(
        "InternLM2ForCausalLM", {"model_type": "llama", "rope_parameters": DYNAMIC},
        {"bias": False, "rope_theta": 50_000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        template="internlm2-chat", end="<|im_end|>",
    ),
    "InternLM2 with biases": Written("InternLM2ForCausalLM", {"model_type": "llama", "attention_bias": True}, {"bias": True}),
}  # fmt: skip


def tokenizer_of() -> Any:
    """Return a tokenizer with InternVL's tokens."""
    return tokenizer_with("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", template=None)


def reference_of(written: Written) -> Any:
    """Return transformers' model and its processor."""
    tokenizer = tokenizer_of()
    vision = {**VISION, **written.tower, "image_size": [16, 16], "patch_size": [4, 4], "use_mean_pooling": True}
    model = InternVLForConditionalGeneration(in_text(
        InternVLConfig, tokenizer, dict(written.text), "<IMG_CONTEXT>", vision_config=vision, image_seq_length=4
    ))  # fmt: skip
    randomise(model.eval(), seed=1, scale=0.25)
    size = {"height": 16, "width": 16}
    named = with_named_tokens(
        tokenizer, start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )  # fmt: skip
    template = (
        "<|im_start|>user\n{% for c in messages[0]['content'] %}{% if c['type'] == 'image' %}<IMG_CONTEXT>"
        "{{ '\\n' if loop.nextitem['type'] == 'text' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
        f"{{{{ {written.end!r} }}}}<|im_start|>assistant{{{{ '\\n' }}}}"
    )
    return model, InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, max_patches=4, crop_to_patches=True, **IMAGENET),
        video_processor=InternVLVideoProcessor(size=size), tokenizer=named, image_seq_length=4, chat_template=template,
    )  # fmt: skip


def write_internvl(written: Written, original: Path, reference: Path, **keys: Any) -> None:
    """Write a model in both layouts. `keys` are more entries of the original's config.json."""
    model, processor = reference_of(written)
    model.save_pretrained(reference)
    processor.save_pretrained(reference)
    weights = dict(model.state_dict())
    tensors = tower_tensors(weights)
    for theirs, own in OUTER.items():
        tensors |= {own + name.removeprefix(theirs): weights[name] for name in weights if name.startswith(theirs)}
    if written.architecture == "InternLM2ForCausalLM":
        tensors |= internlm2_tensors(weights)
    else:
        tensors |= language_tensors(weights)
    save_weights(tensors, original, "safetensors", files=2)
    tokenizer_of().save_pretrained(original)
    (original / "config.json").write_text(json.dumps({**config_of(model, written), **keys}))


def tower_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the layers of the tower by InternVL's names. One weight holds queries, keys and values, in this order."""
    tensors = {}
    for layer in range(VISION["num_hidden_layers"]):
        here, there = f"model.vision_tower.encoder.layer.{layer}.", f"vision_model.encoder.layers.{layer}."
        for theirs, own in LAYER.items():
            found = [name for name in weights if name.startswith(here + theirs)]
            tensors |= {there + own + name.removeprefix(here + theirs): weights[name] for name in found}
        for kind in ("weight", "bias"):
            if f"{here}attention.q_proj.{kind}" in weights:
                parts = [weights[f"{here}attention.{letter}_proj.{kind}"] for letter in "qkv"]
                tensors[f"{there}attn.qkv.{kind}"] = torch.cat(parts)
    return tensors


def language_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a language model of transformers by InternVL's names."""
    start = "model.language_model."
    inner = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
    tensors = {f"language_model.model.{name}": value for name, value in inner.items()}
    return {**tensors, "language_model.lm_head.weight": weights["lm_head.weight"]}


def internlm2_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a Llama by InternLM2's names.

    `wqkv` has a block of rows for each key head: the query heads that share it, then the key head, then the value head."""
    start, groups, heads = "model.language_model.", TEXT["num_key_value_heads"], TEXT["num_attention_heads"]
    tensors = {
        "language_model.model.tok_embeddings.weight": weights[f"{start}embed_tokens.weight"],
        "language_model.model.norm.weight": weights[f"{start}norm.weight"],
        "language_model.output.weight": weights["lm_head.weight"],
    }
    for layer in range(TEXT["num_hidden_layers"]):
        here, there = f"{start}layers.{layer}.", f"language_model.model.layers.{layer}."
        for theirs, own in INTERNLM2.items():
            found = [name for name in weights if name.startswith(here + theirs)]
            tensors |= {there + own + name.removeprefix(here + theirs): weights[name] for name in found}
        for kind in ("weight", "bias"):
            if f"{here}self_attn.q_proj.{kind}" in weights:
                queries, keys, values = (weights[f"{here}self_attn.{letter}_proj.{kind}"] for letter in "qkv")
                width, rows = len(queries) // heads, []
                for group in range(groups):
                    shared = heads // groups * width
                    rows += [queries[group * shared : (group + 1) * shared]]
                    rows += [part[group * width : (group + 1) * width] for part in (keys, values)]
                tensors[f"{there}attention.wqkv.{kind}"] = torch.cat(rows)
    return tensors


def config_of(model: Any, written: Written) -> dict[str, Any]:
    """Return the content of config.json, with the keys that InternVL's code writes."""
    text = model.config.text_config
    names = (*TEXT, "rms_norm_eps", "hidden_act", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
    llm = {**{name: getattr(text, name) for name in names}, "architectures": [written.architecture], "use_cache": True,
           "torch_dtype": "bfloat16", "tie_word_embeddings": True, "return_dict": True, **written.llm}  # fmt: skip
    vision = {
        **VISION, "architectures": ["InternVisionModel"], "attention_dropout": 0.0, "drop_path_rate": 0.1, "dropout": 0.0,
        "hidden_act": "gelu", "image_size": 16, "initializer_factor": 0.1, "layer_norm_eps": 1e-6,
        "model_type": "intern_vit_6b", "norm_type": written.tower["norm_type"], "num_channels": 3, "patch_size": 4,
        "qk_normalization": written.tower["use_qk_norm"], "qkv_bias": written.tower["attention_bias"],
        "use_flash_attn": True,
    }  # fmt: skip
    return {
        "_commit_hash": None, "architectures": ["InternVLChatModel"], "downsample_ratio": 0.5, "dynamic_image_size": True,
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
                     "AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "force_image_size": 16, "llm_config": llm, "max_dynamic_patch": 4, "min_dynamic_patch": 1,
        "model_type": "internvl_chat", "ps_version": "v2", "select_layer": -1, "template": written.template,
        "torch_dtype": "bfloat16", "transformers_version": None, "use_backbone_lora": 0, "use_llm_lora": 0,
        "use_thumbnail": True, "vision_config": vision,
    }  # fmt: skip
