"""Honeybee's abstractors equal their published layers: stages of timm's RegNet and layers of transformers' Deformable DETR."""

from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.nn import functional
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrDecoderLayer

from tests.train.parity import assert_same_gradients, renamed
from tests.train.test_abstractors import GRID, tower
from tests.train.tiny import randomise
from vlmdata_train.abstractors.d_abstractor import DeformableAttention
from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.parts import make_part

REG_BLOCK = {
    "conv1.conv": "first.0", "conv1.bn": "first.1", "conv2.conv": "middle.0", "conv2.bn": "middle.1", "conv3.conv": "last.0",
    "conv3.bn": "last.1", "se.fc1": "excite.0", "se.fc2": "excite.2", "downsample.conv": "skip.0", "downsample.bn": "skip.1",
}  # fmt: skip


class PublishedCAbstractor(nn.Module):
    """Honeybee's C-Abstractor from the stages of timm."""

    def __init__(self, width: int, inner: int, out_width: int, depth: int, side: int) -> None:
        super().__init__()
        stage = partial(RegStage, depth, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
        self.places, self.side = nn.Parameter(torch.zeros(GRID.tokens, width)), side
        self.before, self.after = stage(width, inner), stage(inner, inner)
        self.project = nn.Sequential(nn.Linear(inner, out_width), nn.SiLU(), nn.Linear(out_width, out_width))

    def forward(self, features: Tensor) -> Tensor:
        picture = (features + self.places).transpose(1, 2).unflatten(2, (4, 6))
        pooled = functional.adaptive_avg_pool2d(self.before(picture), self.side)
        return self.project(self.after(pooled).flatten(2).transpose(1, 2))


def c_name(name: str) -> str:
    """Rename a weight of `PublishedCAbstractor` to ours: `before.b2.conv1.bn.bias` is `before.1.first.1.bias`."""
    if not name.startswith(("before", "after")):
        return name
    stage, block, rest = name.split(".", 2)
    return f"{stage}.{int(block[1:]) - 1}.{renamed(REG_BLOCK)(rest)}"


@pytest.mark.parametrize("inner", [12, 8])  # another width than the tower's, and the same
def test_the_c_abstractor_equals_stages_of_timm_with_gradients(inner: int) -> None:
    reference = PublishedCAbstractor(8, inner, 10, depth=3, side=2)
    ours = make_part("abstractor", {"c_abstractor": {"side": 2, "width": inner}}).build(tower(8), 10, GRID)
    randomise(reference, scale=0.4)
    ours.load_state_dict({c_name(name): value for name, value in reference.state_dict().items()})
    assert_same(ours, reference, c_name)


def assert_same(ours: nn.Module, reference: nn.Module, rename: Any) -> None:
    """Compare the output for two images, and the gradients of all weights."""
    features = torch.randn(2, GRID.tokens, 8, generator=torch.Generator().manual_seed(0))
    found, expected = ours(features), reference(features)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (found[0] - found[1]).abs().max() > 0.01, "the images must matter"
    found.square().mean().backward()
    expected.square().mean().backward()
    assert_same_gradients(ours, reference, rename)


class PublishedDAbstractor(nn.Module):
    """Honeybee's D-Abstractor from layers of transformers. The positions of queries are averages of patches."""

    def __init__(self, config: DeformableDetrConfig, width: int, out_width: int, side: int) -> None:
        super().__init__()
        self.enter, self.project = nn.Linear(width, config.d_model), nn.Linear(config.d_model, out_width)
        self.places, self.side = nn.Parameter(torch.zeros(GRID.tokens, config.d_model)), side
        self.queries = nn.Parameter(torch.zeros(side**2, config.d_model))
        self.points = nn.Parameter(torch.zeros(side**2, 2))
        self.layers = nn.ModuleList(DeformableDetrDecoderLayer(config) for _ in range(config.decoder_layers))

    def forward(self, features: Tensor) -> Tensor:
        context = self.enter(features) + self.places
        pooled = functional.adaptive_avg_pool2d(context.transpose(1, 2).unflatten(2, (4, 6)), self.side)
        states = self.queries.expand(len(features), -1, -1)
        for layer in self.layers:
            states = layer(
                states, object_queries_position_embeddings=pooled.flatten(2).transpose(1, 2), spatial_shapes_list=[(4, 6)],
                spatial_shapes=torch.tensor([[4, 6]]), reference_points=self.points.expand(len(features), -1, -1)[:, :, None],
                level_start_index=torch.tensor([0]), encoder_hidden_states=context,
            )  # fmt: skip
        return self.project(states)


DETR_LAYER = {
    "self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value", "self_attn.o_proj": "output",
    "self_attn_layer_norm": "attention_norm", "encoder_attn.sampling_offsets": "reading.offsets",
    "encoder_attn.attention_weights": "reading.weights", "encoder_attn.value_proj": "reading.value",
    "encoder_attn.output_proj": "reading.output", "encoder_attn_layer_norm": "reading_norm", "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2", "final_layer_norm": "mlp_norm",
}  # fmt: skip


def d_name(name: str) -> str:
    """Rename a weight of `PublishedDAbstractor` to ours."""
    if not name.startswith("layers."):
        return name
    layers, number, rest = name.split(".", 2)
    return f"{layers}.{number}.{renamed(DETR_LAYER)(rest)}"


def test_the_d_abstractor_equals_layers_of_deformable_detr_with_gradients() -> None:
    config = DeformableDetrConfig(
        d_model=16, decoder_attention_heads=2, decoder_ffn_dim=12, decoder_layers=2, num_feature_levels=1, decoder_n_points=3,
        attn_implementation="eager",
    )  # fmt: skip
    reference = PublishedDAbstractor(config, 8, 10, side=3).eval()
    settings = {"side": 3, "width": 16, "layers": 2, "heads": 2, "points": 3, "mlp_width": 12}
    ours = make_part("abstractor", {"d_abstractor": settings}).build(tower(8), 10, GRID).eval()
    randomise(reference, scale=0.4)
    with torch.no_grad():
        reference.points.copy_(torch.rand(9, 2, generator=torch.Generator().manual_seed(0)))
    ours.load_state_dict({d_name(name): value for name, value in reference.state_dict().items()})
    assert_same(ours, reference, d_name)


def test_reference_points_start_on_the_patches_from_corner_to_corner() -> None:
    module = make_part("abstractor", {"d_abstractor": {"side": 2, "width": 8}}).build(tower(8), 12, GRID)
    expected = [[0.5 / 6, 0.5 / 4], [5.5 / 6, 0.5 / 4], [0.5 / 6, 3.5 / 4], [5.5 / 6, 3.5 / 4]]  # (x, y) in a grid of 4 x 6
    torch.testing.assert_close(module.points.data, torch.tensor(expected))


def reading(heads: int = 2, points: int = 3) -> DeformableAttention:
    """Build a deformable attention of width 8 without offsets and with equal weights."""
    module = DeformableAttention(8, heads, points)
    randomise(module, scale=0.5)
    for layer in (module.offsets, module.weights):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return module


def centres() -> Tensor:
    """Return the (x, y) of the centre of each patch of the grid, (24, 2)."""
    down, across = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(6) + 0.5) / 6, indexing="ij")
    return torch.stack([across, down], -1).flatten(0, 1)


def test_without_offsets_and_with_equal_weights_a_query_reads_the_patch_at_its_point() -> None:
    module, context = reading(), torch.randn(2, GRID.tokens, 8)
    found = module(torch.randn(2, GRID.tokens, 8), context, centres(), GRID)
    torch.testing.assert_close(found, module.output(module.value(context)), atol=1e-5, rtol=1e-5)


def test_an_offset_of_one_reads_the_next_patch_and_zeros_outside_the_image() -> None:
    module, context = reading(), torch.randn(2, GRID.tokens, 8)
    with torch.no_grad():
        module.offsets.bias.copy_(torch.tensor([1.0, 0.0]).repeat(6))  # one patch to the right
    right = functional.pad(module.value(context).unflatten(1, (4, 6))[:, :, 1:], (0, 0, 0, 1)).flatten(1, 2)
    found = module(torch.randn(2, GRID.tokens, 8), context, centres(), GRID)
    torch.testing.assert_close(found, module.output(right), atol=1e-5, rtol=1e-5)


def test_the_result_is_differentiable_by_the_offsets() -> None:
    module, context = reading().double(), torch.randn(1, GRID.tokens, 8, dtype=torch.float64)
    queries = torch.randn(1, 5, 8, dtype=torch.float64)
    offsets = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1  # between patches

    def read(bias: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"offsets.bias": bias}, (queries, context, centres()[7:12].double(), GRID))

    assert torch.autograd.gradcheck(read, offsets.requires_grad_())


def test_average_pool_to_a_side_covers_any_grid_with_equal_areas() -> None:
    part = make_part("abstractor", {"average_pool": {"side": 2, "layers": 1}})
    module, features = part.build(tower(8), 12, GRID), torch.randn(1, GRID.tokens, 8)
    areas = features.unflatten(1, (2, 2, 2, 3)).mean((2, 4)).flatten(1, 2)  # (1, rows, in a row, columns, in a column, C)
    torch.testing.assert_close(module(features), module.layers(areas))
    assert [part.grid_of(grid) for grid in (GRID, Grid(5, 3))] == [Grid(2, 2)] * 2
    assert module(torch.randn(1, 15, 8), grid=Grid(5, 3)).shape == (1, 4, 12)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"d_abstractor": {"width": 20}}, "width must be divisible by heads, but 20 is not divisible by 8"),
        ({"d_abstractor": {"points": 0}}, "side, layers, heads and points must be 1 or more"),
        ({"d_abstractor": {}}, "d_abstractor cannot use a class token"),
        ({"c_abstractor": {"blocks": 0}}, "side and blocks must be 1 or more, but are 12 and 0"),
        ({"average_pool": {"side": 0}}, "side must be 1 or more, not 0"),
        ({"average_pool": {"side": 2}}, "average_pool cannot use a class token"),
    ],
)
def test_settings_that_do_not_fit_are_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_part("abstractor", part).build(tower(8), 12, Grid(4, 6, extra=1))
