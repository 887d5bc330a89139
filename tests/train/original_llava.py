"""Tiny LLaVA models, written in LLaVA's original layout and in that of transformers, with the same weights.

The names and the keys here follow LLaVA's public code, independently of the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, processors
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tests.train.made import TEXT, VISION
from tests.train.original_files import save_weights
from tests.train.shapes import of_pieces
from tests.train.tiny import randomise

# transformers' name in memory: LLaVA's name. The first entry that fits is used.
NAMES = {
    "model.language_model.": "model.",
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.image_newline": "model.image_newline",
    "lm_head.": "lm_head.",
}
ROWS = 364  # of the original's tables of words: the tokens of its tokenizer, without the image token
CLIP = {**VISION, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 4}
SWITCHED_OFF: dict[str, dict[str, Any]] = {"mistral": {"sliding_window": None}}  # which the class has by default
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# For transformers: the beginning and the end of a prompt, around images on a line and a question on the next one.
PROMPTS = {"llama": (f"{SYSTEM} USER: ", " ASSISTANT:"), "mistral": ("[INST] ", " [/INST]"), "qwen2": ("[INST] ", " [/INST]")}
PARTS = (
    "{% for c in messages[0]['content'] %}{% if c['type'] == 'image' %}<image>{{ '\n' if loop.nextitem['type'] == 'text' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
)
MISTRAL = (  # a template that the tokenizer has
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}"
    " {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Written:
    """How a model is written in the original layout."""

    model_type: str = "llava_llama"
    language: str = "llama"
    keys: Mapping[str, Any] = field(default_factory=dict)  # more entries of config.json
    tower: str = "openai/clip-tiny"
    has_tower: bool = False  # whether the model's files have the tower's weights
    suffix: str = "bin"
    is_linear: bool = False
    template: str | None = None  # the tokenizer's chat template
    exported: str | None = "llava"  # the type of the export; None: transformers has no format for the model


ANYRES = {"mm_patch_merge_type": "spatial_unpad", "image_aspect_ratio": "anyres"}
MLP = {"mm_projector_type": "mlp2x_gelu"}
SIZES = [[16, 32], [32, 16], [32, 32], [48, 16]]  # (width, height)
GRIDS = [[height, width] for width, height in SIZES]  # transformers' order
WRITTEN: dict[str, Written] = {
    "1.5": Written(keys={**MLP, "image_aspect_ratio": "pad", "mm_patch_merge_type": "flat"}),
    "1.5, early keys": Written(model_type="llava", keys={**MLP, "image_aspect_ratio": "pad"}),
    "1.6": Written(
        keys={**MLP, **ANYRES, "image_grid_pinpoints": SIZES}, has_tower=True, suffix="safetensors", exported="llava_next"
    ),
    "1.6, Mistral": Written(
        "llava_mistral", "mistral", {**MLP, **ANYRES, "image_grid_pinpoints": "[(16, 32), (32, 16), (32, 32), (48, 16)]"},
        suffix="safetensors", template=MISTRAL, exported="llava_next",
    ),
    "1.6, Qwen2": Written("llava_qwen", "qwen2", {**MLP, "mm_vision_select_feature": "cls_patch"}, template=MISTRAL),
    "1.0": Written("llava", keys={"mm_projector_type": "linear"}, is_linear=True, exported=None),
}  # fmt: skip


def tokenizer_of(template: str | None) -> Any:
    """Return a tokenizer like that of LLaMA, without an image token."""
    inner = of_pieces("first")
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = template
    assert len(tokenizer) == ROWS
    return tokenizer


def reference_of(written: Written) -> Any:
    """Return transformers' model, whose tables have rows for the image token, and its processor."""
    tokenizer = tokenizer_of(None)
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    is_tiled = "image_grid_pinpoints" in written.keys
    text = {
        **TEXT, "model_type": written.language, "vocab_size": 384, "rope_theta": 50_000.0, "rms_norm_eps": 1e-5,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None,
        **SWITCHED_OFF.get(written.language, {}),
    }  # fmt: skip
    is_whole = written.keys.get("mm_vision_select_feature") == "cls_patch"
    options: dict[str, Any] = {
        "vision_config": CLIP, "text_config": text, "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": 16 + is_whole, "vision_feature_layer": -2, "tie_word_embeddings": False,
        "vision_feature_select_strategy": "full" if is_whole else "default",
        "projector_hidden_act": "linear" if written.is_linear else "gelu",
    }  # fmt: skip
    if is_tiled:
        model: Any = LlavaNextForConditionalGeneration(LlavaNextConfig(**options, image_grid_pinpoints=GRIDS))
    else:
        model = LlavaForConditionalGeneration(LlavaConfig(**options))
    randomise(model.eval(), seed=1, scale=0.25)
    if written.is_linear:  # the second layer returns its input
        second = model.model.multi_modal_projector.linear_2
        second.weight.data, second.bias.data = torch.eye(32), torch.zeros(32)
    begin, end = PROMPTS[written.language]
    processor = (LlavaNextProcessor if is_tiled else LlavaProcessor)(
        images_of(written), tokenizer, patch_size=4, num_additional_image_tokens=1, chat_template=begin + PARTS + end,
        vision_feature_select_strategy=options["vision_feature_select_strategy"], image_token="<image>",
    )  # fmt: skip
    return model, processor


def images_of(written: Written) -> Any:
    """Return the image processor of transformers."""
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    if "image_grid_pinpoints" in written.keys:
        return LlavaNextImageProcessor(**sizes, image_grid_pinpoints=GRIDS)
    if written.keys.get("image_aspect_ratio") == "pad":
        return LlavaImageProcessor(**sizes, do_pad=True)
    return CLIPImageProcessor(**sizes)


def write_llava(written: Written, original: Path, reference: Path) -> None:
    """Write a model in both layouts. The original's tables of words have no row for the image token."""
    model, processor = reference_of(written)
    model.save_pretrained(reference)
    processor.save_pretrained(reference)
    names = dict(NAMES)
    if written.is_linear:
        names["model.multi_modal_projector.linear_1."] = "model.mm_projector."
        del names["model.multi_modal_projector.linear_2."]
    tensors, vision = {}, {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            vision[name.removeprefix("model.vision_tower.")] = tensor
            if not written.has_tower:
                continue
        old = next((old for old in names if name.startswith(old)), None)
        if old is not None:
            is_table = name.endswith(("embed_tokens.weight", "lm_head.weight"))
            tensors[names[old] + name.removeprefix(old)] = tensor[:ROWS] if is_table else tensor
    for layer in range(TEXT["num_hidden_layers"]):  # as early versions of transformers saved them
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_weights(tensors, original, written.suffix, files=2)
    tokenizer_of(written.template).save_pretrained(original)
    (original / "config.json").write_text(json.dumps(config_of(model, written)))
    write_tower(vision, original / written.tower.rpartition("/")[2], is_random=written.has_tower)


def config_of(model: Any, written: Written) -> dict[str, Any]:
    """Return the content of config.json, with the keys that LLaVA's training code writes."""
    text = model.config.text_config
    names = (*TEXT, "rms_norm_eps", "hidden_act", "bos_token_id", "eos_token_id", "initializer_range")
    return {
        **{name: getattr(text, name) for name in names}, "vocab_size": ROWS, "rope_theta": 50_000.0, "rope_scaling": None,
        "_name_or_path": "./checkpoints/tiny", "architectures": ["LlavaLlamaForCausalLM"], "model_type": written.model_type,
        "freeze_mm_mlp_adapter": False, "image_crop_resolution": 224, "max_length": 4096, "mm_hidden_size": 32,
        "mm_projector_lr": None, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "mm_vision_tower": written.tower,
        "pad_token_id": 0, "pretraining_tp": 1, "tie_word_embeddings": False, "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right", "torch_dtype": "float16", "transformers_version": "4.31.0",
        "tune_mm_mlp_adapter": False, "tune_mm_vision_resampler": False, "unfreeze_mm_vision_tower": written.has_tower,
        "use_cache": True, "use_mm_proj": True, **SWITCHED_OFF.get(written.language, {}), **written.keys,
    }  # fmt: skip


def write_tower(vision: Mapping[str, Tensor], folder: Path, *, is_random: bool = False) -> None:
    """Write a whole CLIP with these weights of its image half, or with other ones, as OpenAI's folders have it."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    clip = CLIPModel(CLIPConfig(vision_config=CLIP, text_config=text))
    if not is_random:
        clip.vision_model.load_state_dict(vision)
    folder.mkdir()
    positions = {f"{half}_model.embeddings.position_ids": torch.arange(4)[None] for half in ("text", "vision")}
    torch.save({**clip.state_dict(), **positions}, folder / "pytorch_model.bin")
    clip.config.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
