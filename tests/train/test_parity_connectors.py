"""ViP-LLaVA's whole model, Kosmos-2's image half, and the MLPs of CogVLM and Yi-VL equal their references."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPVisionConfig,
    Kosmos2Config,
    Kosmos2Model,
    LlamaConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_gradients,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    randomised,
    renamed,
)
from tests.train.test_abstractors import GRID, tower
from tests.train.tiny import randomise
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part

VIP_LLAVA = {
    "model.vision_tower.": "encoder.model.",
    "model.multi_modal_projector.projector_layernorm.": "abstractor.0.",
    "model.multi_modal_projector.linear_1.": "abstractor.1.",
    "model.multi_modal_projector.linear_2.": "abstractor.3.",
    "model.language_model.": "language.model.",
    "lm_head.": "language.lm_head.",
}


def test_vip_llava_equals_transformers_with_gradients() -> None:
    vision, layers = {**VISION, "num_hidden_layers": 12}, [-2, -5, -8, -11, 6]
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(**vision), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE_ID,
        image_seq_length=16, vision_feature_layer=layers,
    )  # fmt: skip
    reference = randomised(VipLlavaForConditionalGeneration(config))
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": {"model_type": "clip_vision_model", **vision}, "layer": layers}},
        abstractor={"mlp": {"norm": True}}, language={"hf_causal": {"config": {"model_type": "llama", **TEXT}}},
    )  # fmt: skip
    model = copy_weights(reference, recipe, renamed(VIP_LLAVA))
    batch = of_squares([16, 16])
    answers = answers_of(reference, batch)
    assert_same_logits_and_images_matter(model, batch, answers)
    model.logits(batch).square().mean().backward()
    answers(batch.pixels).square().mean().backward()
    assert_same_gradients(model, reference, renamed(VIP_LLAVA))


KOSMOS = {
    "vision_model.model.": "0.model.",
    "image_to_text_projection.dense.": "1.project.",
    "image_to_text_projection.latent_query": "1.queries",
    "image_to_text_projection.x_attn.q_proj.": "1.query.",
    "image_to_text_projection.x_attn.k_proj.": "1.key.",
    "image_to_text_projection.x_attn.v_proj.": "1.value.",
    "image_to_text_projection.x_attn.out_proj.": "1.output.",
}


def test_the_image_half_of_kosmos_2_equals_transformers_with_gradients() -> None:
    """The decoder is not compared, because no causal language model of transformers has Kosmos-2's layers."""
    text = {"vocab_size": 300, "embed_dim": 24, "layers": 1, "ffn_dim": 32, "attention_heads": 3}
    config = Kosmos2Config(vision_config=VISION, text_config=text, latent_query_num=5)
    reference: Any = randomised(Kosmos2Model(config))
    vision = {"model_type": "clip_vision_model", **VISION, "hidden_act": "quick_gelu"}
    encoder = make_part("encoder", {"hf_vision": {"config": vision, "layer": -1, "norm": True, "tokens": "all"}})
    part = make_part("abstractor", {"kosmos_resampler": {"queries": 5, "head_width": 8}})
    ours = nn.Sequential(encoder.build(), part.build(encoder.facts(), 24, encoder.facts().grid(32, 32))).eval()
    rename = renamed(KOSMOS)
    theirs = {rename(name): value for name, value in reference.state_dict().items()}
    ours.load_state_dict({name: theirs[name] for name in ours.state_dict()})

    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found, expected = ours(pixels), reference.get_image_features(pixels).pooler_output
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (found[0] - found[1]).abs().max() > 0.01, "the images must matter"
    found.square().sum().backward()
    expected.square().sum().backward()
    assert_same_gradients(ours, reference, rename)


def test_yi_vl_has_a_norm_after_each_of_its_two_linear_layers() -> None:
    module = make_part("abstractor", {"mlp": {"norm_after": True}}).build(tower(8), 12, GRID)
    assert [type(layer) for layer in module] == [nn.Linear, nn.LayerNorm, nn.GELU, nn.Linear, nn.LayerNorm]
    assert [tuple(weight.shape) for weight in module.parameters()] == [(12, 8), *[(12,)] * 3, (12, 12), *[(12,)] * 3]


def test_the_adapter_of_cogvlm_equals_its_formula() -> None:
    module = make_part("abstractor", {"gated_mlp": {"mlp_width": 10}}).build(tower(8), 12, GRID)
    randomise(module, scale=0.5)
    weights, features = dict(module.named_parameters()), torch.randn(2, 24, 8)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "0.weight": (12, 8), "1.weight": (12,), "1.bias": (12,), "3.gate.weight": (10, 12), "3.up.weight": (10, 12),
        "3.down.weight": (12, 10),
    }  # fmt: skip
    inner = functional.gelu(
        functional.layer_norm(features @ weights["0.weight"].T, (12,), weights["1.weight"], weights["1.bias"])
    )
    gated = functional.silu(inner @ weights["3.gate.weight"].T) * (inner @ weights["3.up.weight"].T)
    torch.testing.assert_close(module(features), gated @ weights["3.down.weight"].T)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"kosmos_resampler": {}}, "the language model's width, 96, must be divisible by head_width, 64"),
        ({"kosmos_resampler": {"queries": 0}}, "queries must be 1 or more, not 0"),
        ({"gated_mlp": {"mlp_width": 0}}, "mlp_width must be 1 or more, not 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_part("abstractor", part).build(tower(8), 96, GRID)
