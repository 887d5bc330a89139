"""The resampler of Qwen-VL and MiniCPM-V equals torch's attention with positions, and reads each tile in its own grid."""

from dataclasses import replace
from math import cos, sin
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.train.parity import assert_packed_equals_separate, of_own_shapes
from tests.train.tiny import LLAMA, randomise, tiny_model
from vlmdata_train.abstractors import query_resampler
from vlmdata_train.abstractors.query_resampler import QueryAttention, sine_positions, stretched
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part

GRID = Grid(4, 6)
QWEN = {"queries": 4, "head_width": 4}
MINICPM = {"queries": 5, "head_width": 4, "grid_queries": False}
OWN_SHAPES = ModelRecipe(
    encoder={"tests.train.tiny.MeanColours": {}}, preprocessing="longest_edge",
    abstractor={"query_resampler": MINICPM}, language={"hf_causal": {"config": LLAMA}},
)  # fmt: skip


def facts(width: int, extra: int = 0) -> EncoderFacts:
    """Return the facts of a tower with features of this width."""
    half = (0.5, 0.5, 0.5)
    return EncoderFacts(width, image_size=32, patch_size=8, mean=half, std=half, extra=extra)


def resampler(settings: dict[str, Any], width: int = 8) -> QueryAttention:
    """Build a resampler to width 12 with random weights."""
    module = make_part("abstractor", {"query_resampler": settings}).build(facts(width), 12, GRID).eval()
    randomise(module, scale=0.5)
    return module


def test_a_position_is_the_sines_and_cosines_of_the_column_then_of_the_row() -> None:
    found = sine_positions(3, 5, 8, torch.device("cpu"))[2 * 5 + 4]  # row 2, column 4
    expected = [sin(4), sin(0.04), cos(4), cos(0.04), sin(2), sin(0.02), cos(2), cos(0.02)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_stretched_positions_of_the_same_grid_are_unchanged_and_others_lie_between() -> None:
    positions = sine_positions(4, 4, 8, torch.device("cpu"))
    torch.testing.assert_close(stretched(positions, 4, Grid(4, 4)), positions)
    linear = torch.arange(16.0)[:, None]
    inner = stretched(linear, 4, Grid(8, 8)).view(8, 8)[3:5, 3:5]
    torch.testing.assert_close(inner, torch.tensor([[6.25, 6.75], [8.25, 8.75]]), atol=0.25, rtol=0)  # bicubic


@pytest.mark.parametrize("settings", [QWEN, MINICPM])
@pytest.mark.parametrize("width", [8, 12])
def test_it_equals_the_attention_of_torch_with_positions_added_by_hand(settings: dict[str, Any], width: int) -> None:
    module, features = resampler(settings, width), torch.randn(2, GRID.tokens, width)
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    parts = (module.query, module.key, module.value)
    attention.load_state_dict({
        "in_proj_weight": torch.cat([part.weight for part in parts]), "in_proj_bias": torch.cat([part.bias for part in parts]),
        "out_proj.weight": module.output.weight, "out_proj.bias": module.output.bias,
    })  # fmt: skip
    places = sine_positions(4, 6, 12, torch.device("cpu"))
    queries, context = module.queries_norm(module.queries), module.context_norm(module.project(features))
    if settings is QWEN:
        of_queries = sine_positions(2, 2, 12, torch.device("cpu"))
        queries, places = queries + of_queries, stretched(of_queries, 2, GRID)
    read, _ = attention(queries.expand(2, -1, -1), context + places, context)
    torch.testing.assert_close(module(features), module.norm(read) @ module.last.weight.T)
    assert isinstance(module.project, nn.Identity) == (width == 12)  # the models have no projection between equal widths


@pytest.mark.parametrize("settings", [QWEN, MINICPM])
def test_the_order_of_patches_matters_only_through_their_positions(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, features = resampler(settings), torch.randn(1, GRID.tokens, 8)
    mixed = features[:, torch.randperm(GRID.tokens, generator=torch.Generator().manual_seed(0))]
    assert (module(mixed) - module(features)).abs().max() > 0.01

    def no_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
        return torch.zeros(rows * columns, width)

    monkeypatch.setattr(query_resampler, "sine_positions", no_positions)
    torch.testing.assert_close(module(mixed), module(features))


@pytest.mark.parametrize("settings", [QWEN, MINICPM])
def test_tiles_of_as_many_patches_in_another_grid_get_other_positions(settings: dict[str, Any]) -> None:
    module, features = resampler(settings), torch.randn(1, GRID.tokens, 8)
    assert (module(features, grid=Grid(3, 8)) - module(features)).abs().max() > 1e-3
    torch.testing.assert_close(module(features, grid=GRID), module(features))
    assert module(torch.randn(1, 10, 8), grid=Grid(5, 2)).shape == (1, settings["queries"], 12)


def test_the_model_reads_slices_of_different_shapes_each_in_its_own_grid() -> None:
    model = tiny_model(replace(OWN_SHAPES, abstractor={"query_resampler": MINICPM | {"head_width": 8}}))
    shapes = [(32, 32), (16, 64), (24, 40), (32, 32)]
    rng = np.random.default_rng(0)
    tiles = [torch.from_numpy(rng.integers(0, 256, (3, *shape), dtype=np.uint8)) for shape in shapes]
    features, counts = model.encode_images(replace(of_own_shapes(model, shapes), pixels=tiles))
    for tile, (height, width), found in zip(tiles, shapes, features.split(counts), strict=True):
        features = model.encoder((tile[None] / 255 - 0.5) / 0.5)
        alone = model.abstractor(features, grid=Grid(height // 8, width // 8))[0]
        torch.testing.assert_close(found, alone)
        single = replace(of_own_shapes(model, [(height, width)]), pixels=[tile])
        torch.testing.assert_close(model.encode_images(single)[0], alone)


def test_samples_with_images_of_different_shapes_packed_equal_separate_ones() -> None:
    model = tiny_model(replace(OWN_SHAPES, abstractor={"query_resampler": MINICPM | {"head_width": 8}}))
    samples = [of_own_shapes(model, sizes, seed) for seed, sizes in enumerate([[(40, 22), (9, 30)], [(64, 8)]])]
    assert samples[0].image_token_counts.tolist() == [5, 5]
    assert_packed_equals_separate(model, samples)


@pytest.mark.parametrize(
    ("settings", "width", "extra", "message"),
    [
        ({"queries": 96}, 256, 0, "queries must be a square number if `grid_queries` is true, but is 96"),
        ({"queries": 0}, 256, 0, "queries must be 1 or more, not 0"),
        ({}, 96, 0, "the language model's width, 96, must be divisible by 4 and by head_width, 128"),
        ({}, 256, 1, "cannot use a class token"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], width: int, extra: int, message: str) -> None:
    with pytest.raises(Exception, match=message):
        tower = facts(8, extra)
        make_part("abstractor", {"query_resampler": settings}).build(tower, width, tower.grid(32, 32))
