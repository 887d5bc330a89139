"""Llama 3.2 Vision, as `MllamaForConditionalGeneration` of transformers.

The cross-attention layers are layers of the language model there, and a part of their own here. The table of embeddings has 8
rows more than the output layer there, and as many here. The added rows of the output layer are zero when a model is loaded, and
are left out when it is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessor, MllamaProcessor
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, as_causal, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, served_template, served_tokenizer, square
from vlmdata_train.convert.towers import check_normalisation
from vlmdata_train.encoders.mllama import MllamaTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD

ADDED = 8  # rows of the embeddings beyond the vocabulary; the first is the image token
HEAD = "language.lm_head.weight"
_LAYER = {  # names in a cross-attention layer
    "input_layernorm.": "attention_norm.", "post_attention_layernorm.": "mlp_norm.", "cross_attn_attn_gate": "attention_gate",
    "cross_attn_mlp_gate": "mlp_gate", "cross_attn.q_proj.": "query.", "cross_attn.k_proj.": "key.",
    "cross_attn.v_proj.": "value.", "cross_attn.o_proj.": "output.", "cross_attn.q_norm.": "query_norm.",
    "cross_attn.k_norm.": "key_norm.", "mlp.gate_proj.": "gate.", "mlp.up_proj.": "up.", "mlp.down_proj.": "down.",
}  # fmt: skip


class Mllama(Family):
    """Llama 3.2 Vision: a tower that reads all tiles at once, a linear layer, and cross-attention layers in a Llama."""

    title = "Llama 3.2 Vision"
    forms = ("mllama",)
    names = (
        ("model.vision_model.", "encoder.model."),
        ("model.multi_modal_projector.", "abstractor."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    tower = MllamaTower
    parts: ClassVar = {
        "encoder": "mllama", "preprocessing": "tiles_by_aspect", "abstractor": "linear", "fusion": "cross_attention",
        "positions": "rope", "writing": "plain", "language": "llama",
    }  # fmt: skip

    def table(self, config: Any) -> tuple[tuple[str, str], ...]:
        """Return the table of names, which depends on the places of the cross-attention layers."""
        cross, entries = list(config.text_config.cross_attention_layers), []
        for number in range(config.text_config.num_hidden_layers):
            layer = f"model.language_model.layers.{number}."
            if number in cross:
                ours = f"fusion.layers.{cross.index(number)}."
                entries += [(layer + theirs, ours + own) for theirs, own in _LAYER.items()]
            else:
                before = sum(place < number for place in cross)
                entries.append((layer, f"language.model.layers.{number - before}."))
        return (*entries, *self.names)

    def our_tensor(self, name: str, tensor: Tensor, rows: int) -> Tensor:
        """Return the tensor with rows of zeros added to the output layer."""
        if name != HEAD or tensor.ndim != 2 or len(tensor) + ADDED != rows:
            return tensor
        return torch.cat([tensor, tensor.new_zeros(ADDED, tensor.shape[1])])

    def their_tensor(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> Tensor:
        """Return the tensor without the added rows of the output layer."""
        return tensor[:-ADDED].contiguous() if name == HEAD else tensor

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another normalisation, activation or irregular cross-attention layers."""
        config, images, text = start.config, start.images, start.config.text_config
        check_normalisation(start, CLIP_MEAN, CLIP_STD)
        if text.hidden_act != "silu":
            raise ValueError(f"fusion: the layers of {start.name} must have the activation silu, not {text.hidden_act}")
        cross = list(text.cross_attention_layers)
        every = cross[1] - cross[0] - 1 if len(cross) > 1 else text.num_hidden_layers
        if cross != places_of(cross[0], every, text.num_hidden_layers - len(cross)):
            raise ValueError(f"fusion: the cross-attention layers of {start.name} are not at regular distances: {cross}")
        return ModelRecipe(
            encoder={"mllama": {"config": plain_config(config.vision_config)}},
            preprocessing={"tiles_by_aspect": {
                "max_tiles": images.max_image_tiles, "resample": FILTERS[int(images.resample)],
            }},
            abstractor="linear",
            fusion={"cross_attention": {
                "first": cross[0], "every": every, "key_heads": text.num_key_value_heads,
                "mlp_width": text.intermediate_size, "qk_norm": True, "mlp_without_image": False, "features": "language",
                "eps": text.rms_norm_eps,
            }},
            writing={"plain": {"image_token": start.token(config.image_token_id)}},
            language={"hf_causal": {
                "config": as_causal(
                    text, "llama", num_hidden_layers=text.num_hidden_layers - len(cross),
                    vocab_size=text.vocab_size + ADDED, tie_word_embeddings=False,
                ),
                "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        text, fusion = model.language.config, model.plan.fusion
        yield from super().misfits(model)
        expected = {
            "heads": None, "key_heads": getattr(text, "num_key_value_heads", None), "qk_norm": True,
            "mlp_width": getattr(text, "intermediate_size", None), "mlp_without_image": False, "features": "language",
            "gates": "scalar", "runs": "whole", "eps": getattr(text, "rms_norm_eps", None),
        }  # fmt: skip
        for name, value in expected.items():
            if getattr(fusion, name, value) != value:
                yield "fusion", f"cross_attention with {name}: {value}"
        if not getattr(model.plan.abstractor, "bias", True):
            yield "abstractor", "linear, with a bias"
        if model.plan.writing.bos_token is not None:
            yield "writing", "plain, with the tokenizer's BOS"
        if getattr(text, "hidden_act", None) != "silu":
            yield "language", "a llama with the activation silu"
        kept = text.vocab_size - ADDED  # rows of the output layer there
        if text.tie_word_embeddings or model.image_token_id < kept < len(model.tokenizer):
            yield (
                "language",
                f"a llama with its own output layer, and the last {ADDED} ids only for the image token or no token",
            )

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return MllamaForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, fusion = model.language.config, model.plan.fusion
        cross = places_of(fusion.first, fusion.every, text.num_hidden_layers)
        known = {*MllamaTextConfig().to_dict()} - {"model_type", "num_hidden_layers", "vocab_size", "cross_attention_layers"}
        words = {name: value for name, value in text.to_dict().items() if name in known}
        return MllamaConfig(
            vision_config=model.encoder.model.config.to_dict(),
            text_config={
                **words, "num_hidden_layers": text.num_hidden_layers + len(cross), "cross_attention_layers": cross,
                "vocab_size": text.vocab_size - ADDED,
            },
            image_token_index=model.image_token_id, dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, side = model.plan, model.plan.facts.image_size
        images = MllamaImageProcessor(
            size=square(side), max_image_tiles=model.encoder.model.config.max_num_tiles, **pixel_options(plan)
        )
        return MllamaProcessor(
            images, served_tokenizer(model.tokenizer, model.image_token),
            chat_template=served_template(model.tokenizer, model.image_token),
        )  # fmt: skip


def places_of(first: int, every: int, layers: int) -> list[int]:
    """Return the places of the cross-attention layers among all layers, if the language model has `layers` others."""
    return [place + number for number, place in enumerate(range(first, layers, every))]
