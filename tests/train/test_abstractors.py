"""Abstractors keep neighbours together, return the number of tokens that they declare, and give every weight a gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.train.tiny import randomise
from vlmdata_train.abstractors.pixel_shuffle import shuffle
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.parts import make_part, part_names
from vlmdata_train.model.surroundings import Surroundings, TextFacts, build_abstractor
from vlmdata_train.model.tile_check import check_tiles

CASES: dict[str, dict[str, Any]] = {
    "identity": {}, "linear": {}, "mlp": {"layers": 3, "norm": True}, "pixel_shuffle": {"factor": 2, "layers": 2, "norm": True},
    "average_pool": {"factor": 2}, "patch_merger": {}, "deep_merger": {}, "normed_merger": {},
    "gated_mlp": {"mlp_width": 10, "ends": True}, "kosmos_resampler": {"queries": 3, "head_width": 4},
    "query_resampler": {"queries": 4, "head_width": 4},
    "attention_pool": {"heads": 2, "head_width": 3, "mlp_width": 10},
    "d_abstractor": {"side": 2, "width": 8, "layers": 2, "heads": 2, "points": 3, "mlp_width": 6, "dropout": 0.0},
    "c_abstractor": {"side": 2, "width": 8, "blocks": 2},
    "q_former": {"queries": 3, "width": 8, "layers": 2, "heads": 2, "mlp_width": 12, "dropout": 0.0},
    "gated_resampler": {"latents": 4, "layers": 2, "heads": 2, "key_heads": 1, "head_width": 4},
    "perceiver": {"latents": 5, "layers": 2, "heads": 2, "head_width": 4},
    "instruct_q_former": {"queries": 3, "width": 8, "layers": 2, "heads": 2, "mlp_width": 12, "dropout": 0.0},
    "context_tokens": {"side": 2}, "prompt_projection": {"reads": "both", "heads": 2, "head_width": 4},
    "hybrid_mlp": {},
}  # fmt: skip
GRID = Grid(4, 6)
TEXT = TextFacts(width=6, vocabulary=300)
FOR_ONE_GRID = {"c_abstractor", "d_abstractor", "context_tokens"}
FOR_EVEN_GRIDS = {"pixel_shuffle", "average_pool", "patch_merger", "deep_merger", "normed_merger"}


def tower(width: int) -> EncoderFacts:
    """Return the facts of two towers whose features together have this width."""
    half = (0.5, 0.5, 0.5)
    facts = EncoderFacts(width, image_size=32, patch_size=8, mean=half, std=half)
    return replace(facts, towers=(replace(facts, width=1), replace(facts, width=width - 1)))


def build(part: Any) -> nn.Module:
    """Build a part for a small tower."""
    return build_abstractor(part, tower(8), 12, GRID, TEXT)


def run(module: nn.Module, features: torch.Tensor, *, one_sample: bool = False) -> torch.Tensor:
    """Return the features of tiles (P, N, C), each an image of one sample or of its own sample, with the same question."""
    if not getattr(module, "reads_surroundings", False):
        return module(features)
    numbers, table = torch.arange(len(features)), torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    of_sample, questions = numbers * (not one_sample), torch.tensor([[5, 9, 2, 7]]).expand(len(features), -1)
    surroundings = Surroundings(numbers, of_sample, numbers.float(), questions, lambda ids: table[ids].to(features.dtype))
    return torch.stack(module(list(features), surroundings))


def test_every_abstractor_is_tested() -> None:
    assert sorted(CASES) == part_names("abstractor")


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_number_of_tokens_is_that_of_the_grid_and_every_weight_learns(name: str) -> None:
    part = make_part("abstractor", {name: CASES[name]})
    module = build(part)
    randomise(module)  # equal latents would get equal gradients, and some would get none
    out = run(module, torch.randn(3, GRID.tokens, 8), one_sample=True)
    assert out.shape == (3, part.grid_of(GRID).tokens, 12)
    out.square().sum().backward()
    assert [key for key, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", sorted(CASES))
def test_features_of_images_of_different_samples_are_not_mixed(name: str) -> None:
    module = build(make_part("abstractor", {name: CASES[name]})).eval()
    pixels = torch.randn(2, GRID.tokens, 8)
    torch.testing.assert_close(run(module, pixels)[1], run(module, pixels[1:])[0])


@pytest.mark.parametrize("name", sorted(CASES))
def test_in_bf16_the_result_is_bf16_and_near_that_in_fp32(name: str) -> None:
    module = build(make_part("abstractor", {name: CASES[name]})).eval()
    randomise(module)
    features = torch.randn(2, GRID.tokens, 8, generator=torch.Generator().manual_seed(0))
    exact = run(module, features)
    found = run(module.bfloat16(), features.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("name", ["pixel_shuffle", "average_pool", "attention_pool"])
def test_a_token_depends_only_on_its_square_of_patches(name: str) -> None:
    part = make_part("abstractor", {name: {"factor": 2}})
    module, features = part.build(tower(4), 5, GRID), torch.randn(1, GRID.tokens, 4)
    before = module(features)
    changed = features.clone()
    changed[0, 2 * 6 + 5] += 1.0  # row 2, column 5: square (1, 2), the last of 2 x 3
    moved = (module(changed) - before).abs().sum(-1)[0] > 1e-6
    assert moved.tolist() == [False] * 5 + [True]


def test_pixel_shuffle_orders_channels_by_row_then_column_of_the_square() -> None:
    features = torch.arange(24).view(1, 24, 1)  # the number of each patch of 4 x 6
    assert shuffle(features, GRID, 2)[0, 0].tolist() == [0, 1, 6, 7]
    assert shuffle(features, GRID, 2)[0, 5].tolist() == [16, 17, 22, 23]


@pytest.mark.parametrize("name", ["pixel_shuffle", "average_pool", "attention_pool"])
def test_tiles_of_another_grid_with_as_many_patches_are_divided_into_their_own_squares(name: str) -> None:
    part, features = make_part("abstractor", {name: {"factor": 2}}), torch.randn(1, GRID.tokens, 4)
    module, other = part.build(tower(4), 5, GRID), part.build(tower(4), 5, Grid(2, 12))
    randomise(module, scale=0.5)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(features, grid=Grid(2, 12)), other(features))
    assert (other(features) - module(features)).abs().max() > 0.01


@pytest.mark.parametrize("grid", [Grid(5, 4), Grid(4, 5), Grid(4, 4, extra=1)])
def test_a_grid_that_does_not_divide_into_squares_is_refused(grid: Grid) -> None:
    with pytest.raises(ValueError, match="squares of 2"):
        make_part("abstractor", "pixel_shuffle").build(tower(8), 12, grid)


@pytest.mark.parametrize("preprocessing", ["resize", "edges", "smart_size", "anyres"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_abstractor_that_cannot_read_tiles_of_any_size_is_refused_for_them(name: str, preprocessing: str) -> None:
    parts = {"abstractor": {name: CASES[name]}, "preprocessing": preprocessing}
    plan = ImagePlan(tower(8), fusion=None, writing=None, **{kind: make_part(kind, part) for kind, part in parts.items()})
    of_any_size = ["edges", "smart_size"] if name in FOR_ONE_GRID else ["edges"] if name in FOR_EVEN_GRIDS else []
    if preprocessing in of_any_size:
        with pytest.raises(ValueError, match=r"does not accept \d+ x \d+ patches, which the preprocessing"):
            check_tiles(plan, 12, TEXT)
    else:
        check_tiles(plan, 12, TEXT)


def test_identity_passes_features_of_the_needed_width_on_without_weights() -> None:
    module, features = make_part("abstractor", "identity").build(tower(8), 8, GRID), torch.randn(2, GRID.tokens, 8)
    assert torch.equal(module(features), features) and list(module.parameters()) == []
