"""Idefics 1, as `IdeficsForVisionText2Text` of transformers.

The tables of the embeddings and of the output layer are divided there: the rows of the last ids, which Idefics added to its
language model, are weights of their own. Here each table is one weight.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsImageProcessor, IdeficsProcessor
from transformers.models.idefics.configuration_idefics import IdeficsPerceiverConfig, IdeficsVisionConfig

from vlmdata_train.abstractors.identity import Identity
from vlmdata_train.abstractors.perceiver import Perceiver
from vlmdata_train.convert.family import Family
from vlmdata_train.convert.in_memory import weights_in_memory
from vlmdata_train.convert.published import Published, as_causal
from vlmdata_train.convert.served import FILTERS, pixel_options, served_template, square
from vlmdata_train.convert.towers import is_last_layer_of
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.prompts import written_before
from vlmdata_train.data.render import ANSWER, WORD, answer, user
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.encoders.hf_vision import HfVisionTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.repeated_blocks import blocks_of
from vlmdata_train.model.tokens import IMAGE

FAKE = "<fake_token_around_image>"
ADDED = {  # a divided weight, and the weight with its last rows
    "model.embed_tokens.weight": "model.embed_tokens.additional_embedding.weight",
    "lm_head.weight": "lm_head.additional_fc.weight",
}
CONVERSATION = (user(f"{IMAGE_MARK}\n{WORD}"), answer(ANSWER), user(WORD))
_RESAMPLER, _CROSS = "model.perceiver_resampler.", "model.gated_cross_attn_layers.*."
_ATTENTION = {  # names in the attention of a layer of the resampler
    "context_layer_norm.": "context_norm.", "latents_layer_norm.": "latents_norm.", "q_layer_norm.": "query_norm.",
    "k_layer_norm.": "key_norm.", "q_proj.": "query.", "k_proj.": "key.", "v_proj.": "value.", "output_proj.": "output.",
}  # fmt: skip
_MLP = {"ln": 0, "fc": 1, "c_proj": 3}  # names in the MLP of a layer of the resampler
_LAYER = {  # names in a cross-attention layer
    "input_layernorm.": "attention_norm.", "post_attention_layernorm.": "mlp_norm.", "alpha_cross_attn": "attention_gate",
    "alpha_dense": "mlp_gate", "cross_attn.q_proj.": "query.", "cross_attn.k_proj.": "key.", "cross_attn.v_proj.": "value.",
    "cross_attn.o_proj.": "output.", "cross_attn.q_layer_norm.": "query_norm.", "cross_attn.k_layer_norm.": "key_norm.",
    "mlp.gate_proj.": "gate.", "mlp.up_proj.": "up.", "mlp.down_proj.": "down.",
}  # fmt: skip
_TOWER = (  # fields that the configurations of this tower and of CLIP's share
    "image_size", "intermediate_size", "patch_size", "num_hidden_layers", "num_attention_heads", "num_channels", "hidden_act",
    "layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor",
)  # fmt: skip


class Idefics(Family):
    """Idefics 1: CLIP's tower, a Perceiver resampler or none, and gated cross-attention layers in a Llama."""

    title = "Idefics 1"
    forms = ("idefics",)
    names = (
        ("model.vision_model.", "encoder.model."),
        *((f"{_RESAMPLER}blocks.*.0.{theirs}", f"abstractor.attentions.*.{ours}") for theirs, ours in _ATTENTION.items()),
        *((f"{_RESAMPLER}blocks.*.1.{theirs}.", f"abstractor.mlps.*.{ours}.") for theirs, ours in _MLP.items()),
        (f"{_RESAMPLER}layer_norm.", "abstractor.norm."),
        (f"{_RESAMPLER}latents", "abstractor.latents"),
        *((_CROSS + theirs, f"fusion.layers.*.{ours}") for theirs, ours in _LAYER.items()),
        *((theirs, f"language.{theirs}") for theirs in ADDED),
        *((added, f"language.{theirs}") for theirs, added in ADDED.items()),
        ("model.", "language.model."),
    )  # fmt: skip
    tower = HfVisionTower
    parts: ClassVar = {
        "encoder": "hf_vision", "preprocessing": "resize", "fusion": "cross_attention", "positions": "rope",
        "writing": "between", "language": "llama",
    }  # fmt: skip

    def read(self, start: Published) -> Iterator[tuple[str, str | None, Tensor]]:
        """Yield the weights, and each divided table as one once both of its parts are read.

        Raises ValueError for a part with another shape than the configuration says.
        """
        config = start.config
        parts: dict[str, dict[bool, Tensor]] = {}  # of a table, by whether the part has the last rows
        first_of = {added: first for first, added in ADDED.items()}
        for theirs, name, tensor in weights_in_memory(start):
            table = first_of.get(name, name)
            if table in ADDED and config.additional_vocab_size:
                needed = (config.additional_vocab_size if name in first_of else config.vocab_size, config.hidden_size)
                if tensor.shape != needed:
                    raise ValueError(
                        f"{start.name}: language: the weight '{theirs}' has the shape {tuple(tensor.shape)}, but"
                        f" the model needs {needed}"
                    )
                found = parts.setdefault(table, {})
                found[name in first_of] = tensor
                if len(found) < 2:
                    continue
                tensor = torch.cat([found[False], found[True]])
            yield theirs, self.our_name(table, config), tensor

    def our_tensor(self, name: str, tensor: Tensor, rows: int) -> Tensor:
        """Return the tensor. Gates of transformers have the shape (1,) or (1, 1, D)."""
        return tensor.flatten() if name.endswith("_gate") else tensor

    def their_tensor(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> Tensor:
        """Return the tensor, with the shape of gates in transformers."""
        return tensor[None, None] if name.endswith("_gate") and model.plan.fusion.gates == "vector" else tensor

    def divided(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return the weight, or the two parts of a divided table."""
        if name not in ADDED:
            return {name: tensor}
        first = _first_added(model)
        return {name: tensor[:first], ADDED[name]: tensor[first:].clone()}  # safetensors refuses shared memory

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another activation."""
        config, images = start.config, start.images
        vision, resampler = config.vision_config, config.perceiver_config
        if config.hidden_act != "silu":
            raise ValueError(f"fusion: the layers of {start.name} must have the activation silu, not {config.hidden_act}")
        tower = {"model_type": "clip_vision_model", "hidden_size": vision.embed_dim}
        tower |= {name: getattr(vision, name) for name in _TOWER}
        return ModelRecipe(
            encoder={"hf_vision": {
                "config": tower, "layer": -1, "tokens": "all", "mean": images.image_mean, "std": images.image_std,
            }},
            preprocessing={"resize": {"resample": FILTERS[int(images.resample)]}},
            abstractor="identity" if not config.use_resampler else {"perceiver": {
                "latents": resampler.resampler_n_latents, "layers": resampler.resampler_depth,
                "heads": resampler.resampler_n_heads, "head_width": resampler.resampler_head_dim,
                "qk_norm": resampler.qk_layer_norms_perceiver,
            }},
            fusion={"cross_attention": {
                "every": config.cross_layer_interval, "mlp_width": config.intermediate_size, "qk_norm": config.qk_layer_norms,
                "gates": "vector" if config.alpha_type == "vector" else "scalar", "runs": "latest", "eps": config.rms_norm_eps,
            }},
            writing={"between": {"start": FAKE, "end": FAKE, "image_token": IMAGE}},
            language={"hf_causal": {
                "config": as_causal(
                    config, "llama", vocab_size=config.vocab_size + config.additional_vocab_size,
                    num_key_value_heads=config.num_attention_heads, tie_word_embeddings=start.ties,
                ),
                "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, text = model.plan, model.language.config
        if not is_last_layer_of(model.encoder, "clip_vision_model", extra=0, norm=False):
            yield "encoder", "a CLIP by hf_vision, with `layer: -1` and `tokens: all`"
        yield from super().misfits(model)
        if type(plan.abstractor) not in (Perceiver, Identity) or getattr(plan.abstractor, "frames", None) is not None:
            yield "abstractor", "identity, or perceiver without `frames`"
        for name, values in _fusion_options(text).items():
            if getattr(plan.fusion, name, values[0]) not in values:
                yield "fusion", f"cross_attention with {name}: {values[0]}"
        if len(blocks_of(model.language)) % getattr(plan.fusion, "every", 1):
            yield "fusion", "cross_attention with a value of `every` that divides the number of layers"
        written = [getattr(plan.writing, name, None) for name in ("start", "end", "around", "blank", "bos", "placeholder")]
        if written != [FAKE, FAKE, "image", False, "first", None] or model.image_token != IMAGE:
            yield "writing", f"between with {FAKE} around images and the image token {IMAGE}"
        if any(getattr(text, name, value) != value for name, value in _text_options(text).items()):
            yield "language", "a llama with as many heads of keys as of queries, the activation silu and no biases"
        if not _writes_prompts(model):
            yield (
                "language",
                "a tokenizer and chat template that write BOS first, no EOS in a chat, and no blanks around images",
            )

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return IdeficsForVisionText2Text

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration. It freezes no weights."""
        plan, tower = model.plan, model.encoder.model.config
        text, first = model.language.config.to_dict(), _first_added(model)
        known = {*IdeficsConfig().to_dict()} - {"model_type", "vision_config", "perceiver_config", "architectures"}
        pad = text["pad_token_id"]
        words = {name: value for name, value in text.items() if name in known}
        words |= {"vocab_size": first, "additional_vocab_size": text["vocab_size"] - first}
        words |= {"pad_token_id": None if pad is None or pad >= first else pad}  # torch refuses another id
        return IdeficsConfig(**{
            **words, "freeze_text_layers": False, "freeze_vision_layers": False,
            "cross_layer_interval": plan.fusion.every, "qk_layer_norms": plan.fusion.qk_norm,
            "alpha_type": "vector" if plan.fusion.gates == "vector" else "float",
            "vision_config": IdeficsVisionConfig(
                embed_dim=tower.hidden_size, **{name: getattr(tower, name) for name in _TOWER}
            ),
            "use_resampler": type(plan.abstractor) is Perceiver, "perceiver_config": _perceiver_config(plan.abstractor),
            "dtype": next(model.parameters()).dtype,
        })  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. Its class has no chat template, so only the tokenizer has one."""
        images = IdeficsImageProcessor(size=square(model.plan.facts.image_size), **pixel_options(model.plan))
        tokenizer = copy.deepcopy(model.tokenizer)
        tokenizer.chat_template = served_template(tokenizer, model.image_token)
        return IdeficsProcessor(images, tokenizer)


def _first_added(model: VisionLanguageModel) -> int:
    """Return the first id whose row is in the second part of a divided table: that of the first token for images."""
    ids: Any = model.tokenizer.convert_tokens_to_ids([FAKE, IMAGE])
    return int(min(ids))


def _perceiver_config(part: Perceiver | Identity) -> IdeficsPerceiverConfig:
    """Return the configuration of the resampler, or the default one for a model without a resampler."""
    if isinstance(part, Identity):
        return IdeficsPerceiverConfig()
    return IdeficsPerceiverConfig(
        use_resampler=True, resampler_n_latents=part.latents, resampler_depth=part.layers, resampler_n_heads=part.heads,
        resampler_head_dim=part.head_width, qk_layer_norms_perceiver=part.qk_norm,
    )  # fmt: skip


def _fusion_options(text: Any) -> dict[str, tuple[Any, ...]]:
    """Return the values that the format supports for parameters of the fusion, for a language model's configuration.

    Any value of `runs` is supported, because FAKE follows each image, so that no images are adjacent.
    """
    heads = getattr(text, "num_attention_heads", None)
    return {
        "first": (0,), "heads": (heads, None), "key_heads": (heads, None), "mlp_without_image": (True,),
        "mlp_width": (getattr(text, "intermediate_size", None),), "features": ("tower",),
        "eps": (getattr(text, "rms_norm_eps", None),),
    }  # fmt: skip


def _text_options(text: Any) -> dict[str, Any]:
    """Return the values that the format supports for entries of the language model's configuration."""
    heads, width = getattr(text, "num_attention_heads", 1), getattr(text, "hidden_size", 1)
    return {
        "num_key_value_heads": heads, "head_dim": width // heads, "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False,
    }  # fmt: skip


def _writes_prompts(model: VisionLanguageModel) -> bool:
    """Return whether the processor can write the trainer's prompts.

    The processor writes BOS, then texts without their outer blanks, and images with FAKE around them. It hides an image from
    the text after an EOS.
    """
    tokenizer, template = model.tokenizer, ChatTemplate(model.tokenizer, model.image_token)
    adds_bos = written_before(tokenizer, model.image_token) == [tokenizer.bos_token_id]
    if template.source is None:
        return adds_bos
    try:
        text = template.render(CONVERSATION, add_generation_prompt=True)
    except ValueError:  # the template refuses a second question, or shows no messages
        return False
    bos = tokenizer.bos_token
    if bos is None or not (adds_bos or text.startswith(bos)):
        return False
    texts = text.removeprefix(bos).split(model.image_token)
    has_others = any(token in part for part in texts for token in (FAKE, tokenizer.eos_token) if token)
    return texts == [part.strip(" ") for part in texts] and not has_others
