"""InternVL's original format, `InternVLChatModel` of `OpenGVLab/InternVL2-8B` and others. Its code in the folder is not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from vlmdata_train.convert.original import Original, check_files, language_entry
from vlmdata_train.convert.published import Published
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import load_tokenizer

START, END, IMAGE = "<img>", "</img>", "<IMG_CONTEXT>"
INTERNLM = "InternLM2ForCausalLM"  # a Llama with other names, and with the queries, keys and values in one weight
LANGUAGES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", INTERNLM: "llama"}
# InternViT's entry: (transformers' entry, InternViT's default)
TOWER: dict[str, tuple[str, Any]] = {
    "hidden_size": ("hidden_size", 3200), "intermediate_size": ("intermediate_size", 12800),
    "num_hidden_layers": ("num_hidden_layers", 48), "num_attention_heads": ("num_attention_heads", 25),
    "image_size": ("image_size", 224), "patch_size": ("patch_size", 14), "hidden_act": ("hidden_act", "gelu"),
    "norm_type": ("norm_type", "rms_norm"), "layer_norm_eps": ("layer_norm_eps", 1e-6), "qkv_bias": ("attention_bias", False),
    "qk_normalization": ("use_qk_norm", True),
}  # fmt: skip
TURN_ENDS = {"Hermes-2": "<|im_end|>", "internlm2-chat": "<|im_end|>", "internvl2_5": "<|im_end|>\n"}  # by `template`
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + 'END' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class InternVLOriginal(Original):
    """An InternViT, tiles with a thumbnail, squares of patches merged by an MLP, and a Llama, Qwen or InternLM2."""

    title = "InternVL (original format)"
    forms = ("internvl_chat",)
    grounding = "internvl"
    names = (
        ("vision_model.embeddings.class_embedding", "encoder.model.embeddings.cls_token"),
        ("vision_model.embeddings.patch_embedding.", "encoder.model.embeddings.patch_embeddings.projection."),
        ("vision_model.embeddings.position_embedding", "encoder.model.embeddings.position_embeddings"),
        ("vision_model.encoder.layers.*.attn.proj.", "encoder.model.encoder.layer.*.attention.projection_layer."),
        ("vision_model.encoder.layers.*.attn.", "encoder.model.encoder.layer.*.attention."),
        ("vision_model.encoder.layers.*.norm1.", "encoder.model.encoder.layer.*.layernorm_before."),
        ("vision_model.encoder.layers.*.norm2.", "encoder.model.encoder.layer.*.layernorm_after."),
        ("vision_model.encoder.layers.*.ls", "encoder.model.encoder.layer.*.lambda_"),
        ("vision_model.encoder.layers.*.mlp.", "encoder.model.encoder.layer.*.mlp."),
        ("mlp1.", "abstractor.layers."),
        ("language_model.model.tok_embeddings.", "language.model.embed_tokens."),
        ("language_model.model.layers.*.attention_norm.", "language.model.layers.*.input_layernorm."),
        ("language_model.model.layers.*.ffn_norm.", "language.model.layers.*.post_attention_layernorm."),
        ("language_model.model.layers.*.attention.wo.", "language.model.layers.*.self_attn.o_proj."),
        ("language_model.model.layers.*.attention.wqkv.", "language.model.layers.*.self_attn.qkv."),
        ("language_model.model.layers.*.feed_forward.w1.", "language.model.layers.*.mlp.gate_proj."),
        ("language_model.model.layers.*.feed_forward.w2.", "language.model.layers.*.mlp.down_proj."),
        ("language_model.model.layers.*.feed_forward.w3.", "language.model.layers.*.mlp.up_proj."),
        ("language_model.output.", "language.lm_head."),
        ("language_model.", "language."),
    )

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError that names a part which does not fit."""
        facts = start.facts
        for part, key in (("encoder", "use_backbone_lora"), ("language", "use_llm_lora")):
            if facts.get(key):
                raise ValueError(f"{part}: {start.name} has LoRA updates ({key}). Merge them with InternVL's tools first")
        entry = _language(start)
        tokenizer = load_tokenizer(start.name, image=IMAGE, literals=(START, END))
        check_files(start)
        end = TURN_ENDS.get(str(facts.get("template")))
        return ModelRecipe(
            encoder={"hf_vision": _encoder(start)},
            preprocessing=_preprocessing(facts),
            abstractor=_abstractor(start),
            writing={"between": {"start": START, "end": END, "image_token": IMAGE}},
            language=language_entry(
                start, *entry, tokenizer, chat_template=None if end is None else CHAT.replace("END", end)
            ),
        )  # fmt: skip

    def read(self, start: Published) -> Iterator[tuple[str, str | None, Tensor]]:
        """Yield each weight. A weight of queries, keys and values is yielded as three weights.

        Raises ValueError for rows that cannot be divided among the heads.
        """
        for theirs, tensor in start.weights():
            ours = self.our_name(theirs)
            if ours is None or ".qkv." not in ours:
                yield theirs, ours, tensor
                continue
            try:
                parts = tensor.chunk(3) if ours.startswith("encoder.") else _grouped(start, tensor)
            except (IndexError, RuntimeError):  # rows that cannot be divided
                raise ValueError(
                    f"{start.name}: the weight '{theirs}' has the shape {tuple(tensor.shape)}, which does not fit the heads of"
                    " its config.json"
                ) from None
            for letter, part in zip("qkv", parts, strict=True):
                yield theirs, ours.replace(".qkv.", f".{letter}_proj."), part


def _grouped(start: Published, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return InternLM2's queries, keys and values. Each key head follows its query heads, and its value head follows it.

    The tensor has (query heads + 2 key heads) x width of a head rows; the first dimension of the results is heads x width.
    """
    config = start.facts["llm_config"]
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    split = tensor.unflatten(0, (groups, heads // groups + 2, -1))
    return split[:, :-2].flatten(0, 2), split[:, -2].flatten(0, 1), split[:, -1].flatten(0, 1)


def _half(start: Published, key: str) -> Mapping[str, Any]:
    """Return the configuration of one half of the model. Raises ValueError if it is not a mapping."""
    config = start.facts.get(key) or {}
    if not isinstance(config, dict):
        raise ValueError(f"{start.name}: {key} of its config.json must be a JSON object, not {str(config)[:80]!r}")
    return config


def _language(start: Published) -> tuple[str, dict[str, Any]]:
    """Return the type of the language model in transformers, and its configuration. Raises ValueError for an unknown class."""
    config = _half(start, "llm_config")
    name = next(iter(config.get("architectures") or []), None)
    if name not in LANGUAGES:
        raise ValueError(f"language: {start.name} has the language model {name}, but only {', '.join(LANGUAGES)} can be loaded")
    own = {**config, "tie_word_embeddings": False}  # InternVL's code sets this for all sizes
    if name == INTERNLM:
        own["attention_bias"] = config.get("bias", True)
    return LANGUAGES[name], own


def _encoder(start: Published) -> dict[str, Any]:
    """Return the parameters of `hf_vision`. Raises ValueError for a tower that transformers' class cannot compute."""
    facts, own = start.facts, _half(start, "vision_config")
    config = {theirs: own.get(name, default) for name, (theirs, default) in TOWER.items()}
    if (side := facts.get("force_image_size") or config["image_size"]) != config["image_size"]:
        raise ValueError(
            f"encoder: {start.name} has tiles of {side} pixels (force_image_size), but the tower's table of positions is for"
            f" {config['image_size']} pixels"
        )
    if config["use_qk_norm"] and config["layer_norm_eps"] != 1e-6:
        raise ValueError(
            f"encoder: {start.name} normalises queries and keys with layer_norm_eps {config['layer_norm_eps']}, but"
            " transformers' InternViT does it with 1e-06"
        )
    return {
        "config": {"model_type": "internvl_vision", **config, "use_mean_pooling": True},  # which removes the last norm
        "layer": facts.get("select_layer", -1), "norm": True, "mean": list(IMAGENET_DEFAULT_MEAN),
        "std": list(IMAGENET_DEFAULT_STD),
    }  # fmt: skip


def _preprocessing(facts: Mapping[str, Any]) -> Any:
    """Return the recipe's preprocessing. Pillow resizes with its bicubic filter in InternVL's code."""
    if not facts.get("dynamic_image_size"):
        return "pad" if facts.get("pad2square") else "resize"
    return {"dynamic_tiles": {
        "min_tiles": facts.get("min_dynamic_patch", 1), "max_tiles": facts.get("max_dynamic_patch", 6),
        "thumbnail": bool(facts.get("use_thumbnail")),
    }}  # fmt: skip


def _abstractor(start: Published) -> Any:
    """Return the recipe's abstractor. Raises ValueError for an order of tokens that the trainer does not have."""
    version, ratio = start.facts.get("ps_version", "v1"), start.facts.get("downsample_ratio", 0.5)
    if version != "v2":
        raise ValueError(
            f"abstractor: {start.name} has the pixel shuffle '{version}', which transposes an image, but only v2 can be loaded"
        )
    if not isinstance(ratio, float | int) or not 0 < ratio <= 1 or 1 / ratio % 1:
        raise ValueError(f"abstractor: downsample_ratio of {start.name} must be 1 divided by a whole number, not {ratio!r}")
    return {"pixel_shuffle": {"factor": int(1 / ratio), "layers": 2, "norm": True}}
