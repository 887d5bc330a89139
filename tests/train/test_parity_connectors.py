"""ViP-LLaVA's whole model, Molmo 2's adapter, and several MLPs equal their references."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, LlamaConfig, VipLlavaConfig, VipLlavaForConditionalGeneration
from transformers.models.molmo2.configuration_molmo2 import Molmo2AdapterConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2Adapter

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
from vlmdata_train.convert.families.vipllava import VipLlava
from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part


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
    model = copy_weights(reference, recipe, VipLlava().our_name)
    batch = of_squares([16, 16])
    answers = answers_of(reference, batch)
    assert_same_logits_and_images_matter(model, batch, answers)
    model.logits(batch).square().mean().backward()
    answers(batch.pixels).square().mean().backward()
    assert_same_gradients(model, reference, VipLlava().our_name)


MOLMO = {
    "image_pooling_2d.q_proj.": "query.",
    "image_pooling_2d.k_proj.": "key.",
    "image_pooling_2d.v_proj.": "value.",
    "image_pooling_2d.o_proj.": "output.",
    "image_projector.gate_proj.": "mlp.gate.",
    "image_projector.up_proj.": "mlp.up.",
    "image_projector.down_proj.": "mlp.down.",
}


def squares_of(grid: Grid, tiles: int) -> torch.Tensor:
    """Return the numbers of the patches of each square of 2 x 2, (squares, 4), with -1 outside the tile."""
    numbers = []
    for tile in range(tiles):
        for top in range(0, grid.rows, 2):
            for left in range(0, grid.columns, 2):
                places = [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]
                start = tile * grid.tokens
                is_inside = [row < grid.rows and column < grid.columns for row, column in places]
                inner = [start + row * grid.columns + column for row, column in places]
                numbers.append([number if inside else -1 for number, inside in zip(inner, is_inside, strict=True)])
    return torch.tensor(numbers)


@pytest.mark.parametrize("grid", [Grid(4, 6), Grid(5, 6), Grid(3, 5)], ids=str)
def test_the_adapter_of_molmo_2_equals_transformers_with_gradients(grid: Grid) -> None:
    config = Molmo2AdapterConfig(
        vision_feature_layer=[-1, -2], hidden_size=4, num_attention_heads=2, num_key_value_heads=2, head_dim=3,
        intermediate_size=10, text_hidden_size=12,
    )  # fmt: skip
    reference = randomised(Molmo2Adapter(config))
    part = make_part("abstractor", {"attention_pool": {"heads": 2, "head_width": 3, "mlp_width": 10}})
    ours = part.build(tower(8), 12, GRID)
    ours.load_state_dict({renamed(MOLMO)(name): value for name, value in reference.state_dict().items()})

    features = torch.randn(2, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    found, expected = ours(features, grid=grid), reference(features, squares_of(grid, 2)).last_hidden_state
    assert found.shape[1] == part.grid_of(grid).tokens
    assert (found.flatten(0, 1) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (found[0] - found[1]).abs().max() > 0.01, "the images must matter"
    found.square().sum().backward()
    expected.square().sum().backward()
    assert_same_gradients(ours, reference, renamed(MOLMO))


def test_phi_3_vision_is_a_pixel_shuffle_with_two_layers() -> None:
    """The patches of a square are concatenated in reading order, before a linear layer, a GELU and a linear layer."""
    module = make_part("abstractor", {"pixel_shuffle": {"factor": 2, "layers": 2}}).build(tower(8), 12, GRID)
    features = torch.randn(2, GRID.tokens, 8)
    picture = features.unflatten(1, (4, 6))
    squares = [
        torch.cat([picture[:, row + down, column + right] for down in (0, 1) for right in (0, 1)], -1)
        for row in (0, 2) for column in (0, 2, 4)
    ]  # fmt: skip
    first, _, second = module.layers
    assert all(layer.bias is not None for layer in (first, second))
    torch.testing.assert_close(module(features), second(functional.gelu(first(torch.stack(squares, 1)))))


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


def test_cogvlm_adds_a_vector_before_and_after_the_patches() -> None:
    part = make_part("abstractor", {"gated_mlp": {"mlp_width": 10, "ends": True}})
    module, features = part.build(tower(8), 12, GRID), torch.randn(2, 24, 8)
    randomise(module)
    ends = module[-1]
    torch.testing.assert_close(module(features), torch.cat([
        ends.begin.expand(2, 1, 12), module[:-1](features), ends.end.expand(2, 1, 12)], 1))  # fmt: skip
    assert part.grid_of(GRID).tokens == 26


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"kosmos_resampler": {}}, "the language model's width, 96, must be divisible by head_width, 64"),
        ({"kosmos_resampler": {"queries": 0}}, "queries must be 1 or more, not 0"),
        ({"attention_pool": {"layers": 3}}, "the tower's width, 8, must be divisible by layers, .* but layers is 3"),
        ({"attention_pool": {"heads": 0}}, "factor, layers, heads and head_width must be 1 or more"),
        ({"gated_mlp": {"mlp_width": 0}}, "mlp_width must be 1 or more, not 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_part("abstractor", part).build(tower(8), 96, GRID)
