"""Molmo 2, as `Molmo2ForConditionalGeneration` of transformers.

Its decoder is a Qwen3 here. The table of embeddings has rows for the tokens of images there that the output layer lacks. Here
both have these rows. Those of the output layer are zero when a model is loaded, and are left out when it is saved.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    AutoProcessor,
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
)
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.molmo2.configuration_molmo2 import Molmo2TextConfig

from vlmdata_train.convert.family import Family, has_room
from vlmdata_train.convert.published import Published, as_causal
from vlmdata_train.convert.served import FILTERS, served_template, served_tokenizer, square, with_named_tokens
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.encoders.hf_vision import HfVisionTower
from vlmdata_train.fusions.added_tokens import AddedTokens
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe

HEAD = "language.lm_head.weight"
PATCHES = "encoder.model.embeddings.patch_embedding.weight"
TABLES = tuple(f"model.transformer.wte.{name}" for name in ("embedding", "new_embedding"))  # of embeddings, in the files
PATCH, START, END, ROW_END, OVERVIEW = "<im_patch>", "<im_start>", "<im_end>", "<im_col>", "<low_res_im_start>"
OTHERS = ("<|image|>", "<|video|>", "<im_low>", "<frame_start>", "<frame_end>")  # tokens that the processor also needs
TEXT = (  # entries of the decoder's configuration that a Qwen3 has too
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "attention_dropout", "max_position_embeddings", "rope_parameters", "rms_norm_eps", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
VISION = (  # entries of the tower's configuration that a SigLIP has too
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "num_channels", "hidden_act",
    "layer_norm_eps", "attention_dropout",
)  # fmt: skip


class Molmo2(Family):
    """Molmo 2: a SigLIP with two layers, overlapping crops, an attention pool, and a Qwen3 whose images see each other."""

    title = "Molmo 2"
    forms = ("molmo2",)
    names = (
        ("model.vision_tower.layers.*.self_attn.o_proj.", "encoder.model.encoder.layers.*.self_attn.out_proj."),
        ("model.vision_tower.layers.", "encoder.model.encoder.layers."),
        ("model.vision_tower.patch_embedding.", "encoder.model.embeddings.patch_embedding."),
        ("model.vision_tower.positional_embedding", "encoder.model.embeddings.position_embedding.weight"),
        ("model.multi_modal_projector.image_pooling_2d.q_proj.", "abstractor.query."),
        ("model.multi_modal_projector.image_pooling_2d.k_proj.", "abstractor.key."),
        ("model.multi_modal_projector.image_pooling_2d.v_proj.", "abstractor.value."),
        ("model.multi_modal_projector.image_pooling_2d.o_proj.", "abstractor.output."),
        ("model.multi_modal_projector.image_projector.gate_proj.", "abstractor.mlp.gate."),
        ("model.multi_modal_projector.image_projector.up_proj.", "abstractor.mlp.up."),
        ("model.multi_modal_projector.image_projector.down_proj.", "abstractor.mlp.down."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    unneeded = ("encoder.model.post_layernorm.", "encoder.model.head.")
    parts: ClassVar = {
        "preprocessing": "overlapping_crops", "abstractor": "attention_pool", "fusion": "added_tokens", "positions": "rope",
        "writing": "rows", "language": "qwen3",
    }  # fmt: skip

    def our_tensor(self, name: str, tensor: Tensor, rows: int) -> Tensor:
        """Return a patch embedding as a convolution, and the output layer with rows of zeros for the tokens of images."""
        if name == PATCHES and tensor.ndim == 2:
            side = math.isqrt(tensor.shape[1] // 3)
            return tensor.view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()
        if name == HEAD and tensor.ndim == 2 and len(tensor) < rows:
            return torch.cat([tensor, tensor.new_zeros(rows - len(tensor), tensor.shape[1])])
        return tensor

    def their_tensor(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> Tensor:
        """Return a patch embedding as a linear layer over pixels, and the output layer without tokens of images."""
        if name == PATCHES:
            return tensor.permute(0, 2, 3, 1).flatten(1).contiguous()
        return tensor[: first_image_id(model)].contiguous() if name == HEAD else tensor

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError, which names the part, for settings that the trainer does not have."""
        config, images, processor = start.config, start.images, AutoProcessor.from_pretrained(start.name)
        text, vision, pool = config.text_config, config.vision_config, config.adapter_config
        check_settings(start, processor)
        layers = [layer % vision.num_hidden_layers + 1 for layer in pool.vision_feature_layer]
        return ModelRecipe(
            encoder={"hf_vision": {
                "config": {
                    "model_type": "siglip_vision_model", "image_size": vision.image_size[0], "vision_use_head": False,
                    **{name: getattr(vision, name) for name in VISION},
                },
                "layer": layers, "mean": images.image_mean, "std": images.image_std,
            }},
            preprocessing={"overlapping_crops": {
                "max_crops": images.max_crops, "margin": images.overlap_margins[0], "keep_aspect": False, "antialias": False,
            }},
            abstractor={"attention_pool": {
                "factor": images.pooling_size[0], "layers": len(layers), "heads": pool.num_attention_heads,
                "head_width": pool.head_dim, "mlp_width": pool.intermediate_size,
            }},
            fusion={"added_tokens": {"two_way": True}},
            writing={"rows": {
                "row_end": ROW_END, "start": START, "end": END, "image_token": start.token(config.image_patch_id),
                "overview_start": OVERVIEW if processor.use_single_crop_start_token else None,
                "ends_overview_rows": processor.use_single_crop_col_tokens is not False, "placeholder": processor.image_token,
            }},
            language={"hf_causal": {
                "config": as_causal(
                    text, "qwen3", vocab_size=text.vocab_size + text.additional_vocab_size, tie_word_embeddings=False
                ),
                "tokenizer": start.name, "chat_template": template_of(processor),
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, writing, text = model.plan, model.plan.writing, model.language.config
        if not is_siglip(model.encoder, plan.facts.image_size):
            yield "encoder", "a SigLIP by hf_vision, with `norm: false` and as many patches as positions"
        elif getattr(plan.abstractor, "layers", 0) != len(model.encoder.layers):
            yield "abstractor", "attention_pool, with as many layers as the tower concatenates"
        yield from super().misfits(model)
        if getattr(plan.preprocessing, "keep_aspect", False) or getattr(plan.preprocessing, "antialias", False):
            yield "preprocessing", "overlapping_crops, with `keep_aspect: false, antialias: false`"
        if not getattr(plan.fusion, "two_way", False):
            yield "fusion", "added_tokens, with `two_way: true`"
        own = {name: getattr(writing, name, None) for name in ("row_end", "last_row_end", "start", "end", "bos")}
        published = {"row_end": ROW_END, "last_row_end": None, "start": START, "end": END, "bos": "first"}
        if own != published or getattr(writing, "overview_start", None) not in (None, OVERVIEW) or model.image_token != PATCH:
            yield "writing", f"rows with {PATCH}, {ROW_END}, {START}, {END}, perhaps {OVERVIEW}, and BOS first"
        if getattr(text, "attention_bias", False) or getattr(text, "use_sliding_window", False):
            yield "language", "a qwen3 without biases and sliding windows"
        if type(plan.fusion) is AddedTokens:  # the templates of other models may refuse the question
            yield from word_misfits(model)

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return Molmo2ForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, vision, pool = model.language.config.to_dict(), model.encoder.model.config, model.plan.abstractor
        known, first = {*Molmo2TextConfig().to_dict()}, first_image_id(model)
        words = {name: text[name] for name in TEXT if name in known | {"bos_token_id", "eos_token_id", "pad_token_id"}}
        ids = {
            f"{name}_token_id": their_tokenizer(model).convert_tokens_to_ids(token) for name, token in [
                ("image_start", START), ("image_end", END), ("low_res_image_start", OVERVIEW),
                ("frame_start", "<frame_start>"), ("frame_end", "<frame_end>"),
            ]
        }  # fmt: skip
        return Molmo2Config(
            vision_config={
                **{name: getattr(vision, name) for name in VISION}, "num_key_value_heads": vision.num_attention_heads,
                "head_dim": vision.hidden_size // vision.num_attention_heads, "image_size": [model.plan.facts.image_size] * 2,
            },
            adapter_config={
                "vision_feature_layer": [layer - 1 for layer in model.encoder.layers], "hidden_size": vision.hidden_size,
                "num_attention_heads": pool.heads, "num_key_value_heads": pool.heads, "head_dim": pool.head_width,
                "intermediate_size": pool.mlp_width or 4 * text["hidden_size"], "text_hidden_size": text["hidden_size"],
            },
            text_config={**words, "vocab_size": first, "additional_vocab_size": text["vocab_size"] - first},
            image_patch_id=model.image_token_id, **ids, dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def save(self, reference: Any, folder: Path, *, max_shard_size: str) -> None:
        """Write the weights with the published names and tables of embeddings. transformers would halve the table."""
        weights = revert_weight_conversion(reference, reference.state_dict())
        rows = reference.config.text_config.vocab_size
        tables = torch.cat([weights[name] for name in TABLES])
        weights |= dict(zip(TABLES, (tables[:rows].clone(), tables[rows:].clone()), strict=True))
        reference.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size, save_original_format=False)

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, facts = model.plan, model.plan.facts
        options: dict[str, Any] = {
            "size": square(facts.image_size), "patch_size": facts.patch_size, "image_mean": list(facts.mean),
            "image_std": list(facts.std),
        }  # fmt: skip
        images = Molmo2ImageProcessor(
            **options, max_crops=plan.preprocessing.max_crops, overlap_margins=[plan.preprocessing.margin] * 2,
            pooling_size=[plan.abstractor.factor] * 2,
        )  # fmt: skip
        image = plan.writing.placeholder or model.image_token
        template: Any = served_template(model.tokenizer, image)
        tokenizer = with_named_tokens(served_tokenizer(their_tokenizer(model), image), image_token=image)
        return Molmo2Processor(
            images, Molmo2VideoProcessor(**options), tokenizer, chat_template=template,
            use_single_crop_col_tokens=plan.writing.ends_overview_rows,
            use_single_crop_start_token=plan.writing.overview_start is not None,
        )  # fmt: skip


QUESTION = [{"role": "user", "content": "What?"}]


def check_settings(start: Published, processor: Any) -> None:
    """Raise ValueError, which names the part, for settings of a published model that the trainer's parts do not have."""
    text, vision, pool = start.config.text_config, start.config.vision_config, start.config.adapter_config
    images, side = start.images, vision.image_size[0]
    patches = (side // vision.patch_size) ** 2
    if vision.num_key_value_heads != vision.num_attention_heads or vision.num_position_embeddings != patches:
        raise ValueError(f"encoder: {start.name} has a tower other than a SigLIP for square images")
    if vision.head_dim * vision.num_attention_heads != vision.hidden_size or not vision.attention_bias:
        raise ValueError(f"encoder: {start.name} has a tower with other heads than a SigLIP")
    if FILTERS[int(images.resample)] != "bilinear" or len(set(images.overlap_margins)) > 1:
        raise ValueError(f"preprocessing: {start.name} resamples with another filter, or its crops overlap unequally")
    if len(set(images.pooling_size)) > 1 or pool.num_key_value_heads != pool.num_attention_heads or pool.hidden_act != "silu":
        raise ValueError(f"abstractor: {start.name} pools patches in another way than attention_pool")
    if pool.mlp_bias or not pool.attention_bias:
        raise ValueError(f"abstractor: {start.name} has other biases than attention_pool")
    if not processor.image_use_col_tokens:
        raise ValueError(f"writing: {start.name} writes no token after the rows of an image")
    scaled = text.rope_parameters["rope_type"] != "default"
    if scaled and list(text.rope_scaling_layers) != list(range(text.num_hidden_layers)):
        raise ValueError(f"language: {start.name} scales the positions of some layers only, which a qwen3 does not")
    if text.norm_after or text.qk_norm_type != "qwen3" or text.attention_bias:
        raise ValueError(f"language: {start.name} has other norms or biases than a qwen3")


def word_misfits(model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
    """Yield what the format supports if it cannot hold a model's prompts or its tokens."""
    tokenizer = model.tokenizer
    begin = tokenizer.bos_token or tokenizer.eos_token
    template = ChatTemplate(tokenizer, model.plan.writing.placeholder or model.image_token)
    if not (begin and template.source and template.render(QUESTION, add_generation_prompt=True).startswith(begin)):
        yield "language", f"prompts that begin with {begin or 'BOS'}, which its processor writes before each text"
    later = range(first_image_id(model), len(tokenizer))
    if not has_room(model, *OTHERS) or set(template.stop_ids) & set(later):
        yield "language", f"tokens of images with the last ids, and ids for {', '.join(OTHERS)}"


def is_siglip(encoder: Any, side: int) -> bool:
    """Return whether a tower is a SigLIP whose layers are used without the last norm, and whose positions are not interpolated.

    `side` is that of its images. SigLIP 2 has 27 x 27 positions at 384 px, and as many patches at 378 px.
    """
    if type(encoder) is not HfVisionTower or encoder.model.config.model_type != "siglip_vision_model":
        return False
    config = encoder.model.config
    return not (encoder.extra or encoder.norm) and config.image_size // config.patch_size == side // config.patch_size


def first_image_id(model: VisionLanguageModel) -> int:
    """Return the lowest id of the tokens of images. The published output layer ends before it."""
    known = model.tokenizer.get_vocab()
    return min(known[token] for token in (model.image_token, *model.plan.writing.tokens()))


def their_tokenizer(model: VisionLanguageModel) -> Any:
    """Return a copy of a model's tokenizer with all tokens that the processor needs."""
    tokenizer = copy.deepcopy(model.tokenizer)
    known = tokenizer.get_vocab()
    missing = [token for token in (OVERVIEW, *OTHERS) if token not in known]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    return tokenizer


def template_of(processor: Any) -> str | None:
    """Return a processor's chat template with the token before it that the processor writes before each text.

    The published template also writes no end after a last answer. The template that is returned writes EOS there, from which a
    model learns to stop.
    """
    template, tokenizer = processor.chat_template, processor.tokenizer
    if template is None:
        return None
    begin, end = tokenizer.bos_token or tokenizer.eos_token, tokenizer.eos_token
    shown = processor.apply_chat_template([*QUESTION, {"role": "assistant", "content": "That."}], tokenize=False)
    if not shown.startswith(begin):
        template = "{{- " + json.dumps(begin) + " -}}" + template
    if not shown.rstrip().endswith(end):
        template += "{% if messages[-1]['role'] == 'assistant' %}{{ " + json.dumps(end) + " }}{% endif %}"
    return str(template)
