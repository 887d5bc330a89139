"""Idefics2, as `Idefics2ForConditionalGeneration` of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import Idefics2Config, Idefics2ForConditionalGeneration, Idefics2ImageProcessor, Idefics2Processor

from vlmdata_train.convert.family import Family, has_room
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, served_template, served_tokenizer
from vlmdata_train.convert.towers import check_normalisation
from vlmdata_train.encoders.siglip_navit import HALF, SiglipNavitTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import IMAGE

END = "<end_of_utterance>"  # the processor adds it to the tokenizer
FAKE = "<fake_token_around_image>"
_RESAMPLER, _OURS = "model.connector.perceiver_resampler.", "abstractor."
_LAYER = {  # names in a layer of the resampler
    "input_latents_norm": "latents_norm", "input_context_norm": "context_norm", "post_attention_layernorm": "mlp_norm",
    "self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value", "self_attn.o_proj": "output",
    "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.down",
}  # fmt: skip


class Idefics2(Family):
    """Idefics2: SigLIP for images of any size, a gated MLP with a resampler, and any language model."""

    title = "Idefics2"
    forms = ("idefics2",)
    names = (
        ("model.vision_model.", "encoder.model."),
        *((f"model.connector.modality_projection.{name}_proj.", f"{_OURS}project.{name}.") for name in ("gate", "up", "down")),
        *((f"{_RESAMPLER}layers.*.{theirs}.", f"{_OURS}layers.*.{ours}.") for theirs, ours in _LAYER.items()),
        (_RESAMPLER, _OURS),
        ("model.text_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    tower = SiglipNavitTower
    parts: ClassVar = {
        "encoder": "siglip_navit", "preprocessing": "edges", "abstractor": "gated_resampler", "fusion": "tokens",
        "positions": "rope", "writing": "between",
    }  # fmt: skip

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another normalisation or activation."""
        config, images, text, resampler = start.config, start.images, start.config.text_config, start.config.perceiver_config
        check_normalisation(start, HALF, HALF)
        if (resampler.hidden_act, text.hidden_act) != ("silu", "silu"):
            raise ValueError(f"abstractor: {start.name} must have the activation silu in its connector and language model")
        return ModelRecipe(
            encoder={"siglip_navit": {"config": plain_config(config.vision_config, model_type=None)}},
            preprocessing={"edges": {
                "longest": images.size["longest_edge"], "shortest": images.size["shortest_edge"],
                "split": images.do_image_splitting, "resample": FILTERS[int(images.resample)],
            }},
            abstractor={"gated_resampler": {
                "latents": resampler.resampler_n_latents, "layers": resampler.resampler_depth,
                "heads": resampler.resampler_n_heads, "key_heads": resampler.num_key_value_heads,
                "head_width": resampler.resampler_head_dim, "eps": resampler.rms_norm_eps,
                "mlp_width": text.intermediate_size,
            }},
            writing={"between": {
                "start": FAKE, "end": FAKE, "around": "tile", "blank": True,
                "image_token": start.token(config.image_token_id),
            }},
            language={"hf_causal": {"config": plain_config(text, tie_word_embeddings=start.ties), "tokenizer": start.name}},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, text = model.plan, model.language.config
        yield from super().misfits(model)
        if getattr(plan.abstractor, "mlp_width", None) != getattr(text, "intermediate_size", None):
            yield "abstractor", "gated_resampler with the language model's intermediate size as `mlp_width`"
        written = [getattr(plan.writing, name, None) for name in ("start", "end", "around", "blank", "bos")]
        if written != [FAKE, FAKE, "tile", True, "first"] or model.image_token != IMAGE:
            yield "writing", f"between with {FAKE} around tiles, `blank` and the image token {IMAGE}"
        if getattr(text, "hidden_act", None) != "silu":
            yield "language", "a model with the activation silu"
        if not has_room(model, END):
            yield "language", f"a tokenizer with the token {END}, or with fewer tokens than rows of embeddings"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return Idefics2ForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, part = self.text_config(model), model.plan.abstractor
        perceiver = {
            "hidden_size": text.hidden_size, "rms_norm_eps": part.eps, "resampler_n_latents": part.latents,
            "resampler_depth": part.layers, "resampler_n_heads": part.heads, "resampler_head_dim": part.head_width,
            "num_key_value_heads": part.key_heads,
        }  # fmt: skip
        return Idefics2Config(
            vision_config=model.encoder.model.config.to_dict(), perceiver_config=perceiver, text_config=text,
            image_token_id=model.image_token_id, tie_word_embeddings=text.tie_word_embeddings,
            dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        part = model.plan.preprocessing
        images = Idefics2ImageProcessor(
            size={"shortest_edge": part.shortest, "longest_edge": part.longest}, do_image_splitting=part.split,
            **pixel_options(model.plan),
        )  # fmt: skip
        template: Any = served_template(model.tokenizer, model.image_token)
        return Idefics2Processor(
            images, served_tokenizer(model.tokenizer, model.image_token), image_seq_len=model.plan.abstractor.latents,
            chat_template=template,
        )  # fmt: skip
