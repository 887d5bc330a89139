"""BLIP-2, Idefics2 and Fuyu give the logits of their classes in transformers with the same weights."""

import re

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    FuyuConfig,
    FuyuForCausalLM,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    one_row,
    randomised,
    renamed,
    with_images,
)
from vlmdata_train.model.model_recipe import ModelRecipe

LLAMA = {"model_type": "llama", **TEXT}
FIRST = {
    "lm_head.": "language.lm_head.", "model.text_model.": "language.model.", "model.language_model.": "language.model.",
    "model.vision_model.": "encoder.model.", "vision_model.": "encoder.model.", "language_model.": "language.",
    "qformer.": "abstractor.transformer.", "query_tokens": "abstractor.queries", "language_projection.": "abstractor.project.",
    "model.connector.perceiver_resampler.": "abstractor.", "model.connector.modality_projection.": "abstractor.project.",
    "model.vision_embed_tokens.": "abstractor.",
}  # fmt: skip
INNER = {
    "input_latents_norm": "latents_norm", "input_context_norm": "context_norm", "post_attention_layernorm": "mlp_norm",
    "self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value", "self_attn.o_proj": "output",
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
}  # fmt: skip


def our_name(name: str) -> str:
    """Rename a weight of one of the references to ours."""
    name = renamed(FIRST)(name)
    if re.match(r"abstractor\.(layers|project)\.", name):
        for theirs, ours in INNER.items():
            name = name.replace(theirs, ours)
    return name


def test_blip2_equals_transformers() -> None:
    q_former = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30,
                "vocab_size": 10, "encoder_hidden_size": 32}  # fmt: skip
    config = Blip2Config(
        vision_config=VISION, qformer_config=q_former, text_config=LLAMA, num_query_tokens=5, image_token_index=IMAGE_ID
    )
    reference = randomised(Blip2ForConditionalGeneration(config))
    recipe = ModelRecipe(
        encoder={"tests.train.tiny.Blip2Tower": {"config": VISION}}, language={"hf_causal": {"config": LLAMA}},
        abstractor={"q_former": {"queries": 5, "width": 24, "layers": 3, "heads": 2, "mlp_width": 30}},
    )  # fmt: skip
    # only the Q-Former of transformers also takes text
    model = copy_weights(reference, recipe, our_name, unlike=["vocab_size"])
    batch = of_squares([5, 5])
    assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch))


def test_idefics2_equals_transformers() -> None:
    perceiver = {"hidden_size": 32, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4,
                 "num_key_value_heads": 2, "resampler_head_dim": 6}  # fmt: skip
    config = Idefics2Config(
        vision_config=VISION, perceiver_config=perceiver, text_config={**LLAMA, "model_type": "mistral"},
        image_token_id=IMAGE_ID,
    )  # fmt: skip
    reference = randomised(Idefics2ForConditionalGeneration(config))
    resampler = {"latents": 5, "layers": 2, "heads": 4, "key_heads": 2, "head_width": 6, "mlp_width": 48}
    tower = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": tower, "layer": -1, "norm": True}}, abstractor={"gated_resampler": resampler},
        language={"hf_causal": {"config": {**LLAMA, "model_type": "mistral"}}},
    )  # fmt: skip
    model = copy_weights(reference, recipe, our_name)
    batch = of_squares([5, 5])
    answers = answers_of(reference, batch)
    assert_same_logits_and_images_matter(model, batch, lambda pixels: answers(pixels[None]))


def test_fuyu_equals_transformers_on_an_image_that_is_not_square() -> None:
    text = {name: value for name, value in TEXT.items() if name != "num_key_value_heads"}
    config = FuyuConfig(text_config={"model_type": "persimmon", **text}, patch_size=4, image_token_id=IMAGE_ID, **text)
    reference = randomised(FuyuForCausalLM(config))
    persimmon = {name: value for name, value in config.text_config.to_dict().items() if value is not None}
    recipe = ModelRecipe(
        encoder={"raw_patches": {"patch_size": 4}}, preprocessing="native", abstractor="linear",
        language={"hf_causal": {"config": persimmon}},
    )  # fmt: skip
    model = copy_weights(reference, recipe, our_name)
    count = model.tokens_of(18, 11)
    assert count == 5 * 3
    pixels = torch.randn(1, 3, 12, 20)
    batch = one_row(with_images([count]), pixels, [count], [1], [(11, 18)])

    def theirs(pixels: torch.Tensor) -> torch.Tensor:
        patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4).reshape(1, 3, -1, 4, 4).permute(0, 2, 3, 4, 1).reshape(1, -1, 48)
        return answers_of(reference, batch)(patches)

    assert_same_logits_and_images_matter(model, batch, theirs)
