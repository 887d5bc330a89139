"""Paired crops join each patch of the whole image with the average of the same place in the crops, as moondream2's code."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.train.parity import assert_packed_equals_separate, of_own_shapes
from tests.train.test_preprocessing import picture
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.model import build_model, image_plan
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.pixels import normalise
from vlmdata_train.preprocessing.overlapping_crops import stitch
from vlmdata_train.preprocessing.paired_crops import PairedCrops, crop_grid

HALF = (0.5, 0.5, 0.5)
MOONDREAM = EncoderFacts(4, 378, 14, HALF, HALF)
SMALL = EncoderFacts(4, 70, 14, HALF, HALF)  # 5 x 5 patches


def sizes(count: int) -> list[tuple[int, int]]:
    """Draw widths and heights, some of them extreme."""
    rng = random.Random(0)
    return [(rng.randint(1, 4000), rng.choice([1, 112, rng.randint(1, 4000)])) for _ in range(count)] + [(1, 1), (378, 378)]


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((378, 378), (1, 1)), ((379, 378), (1, 1)), ((379, 379), (3, 3)), ((700, 500), (2, 4)), ((1024, 768), (3, 4)),
        ((400, 1200), (6, 2)), ((400, 1612), (6, 2)), ((2000, 2000), (3, 3)), ((4000, 600), (1, 9)), ((3000, 1), (1, 1)),
    ],
)  # fmt: skip
def test_the_grid_of_crops_follows_moondreams_rule(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """The expected grids are computed by hand: the image without margins of 112 px, in steps of 266 px, at most 12 crops."""
    assert PairedCrops().crops(*size, MOONDREAM) == grid


def test_there_are_at_most_the_most_crops_and_they_cover_the_image_if_they_can() -> None:
    for width, height in sizes(2000):
        rows, columns = crop_grid(width, height, 266, 12)
        assert rows >= 1 and columns >= 1 and rows * columns <= 12
        if min(width, height) > 266 and math.ceil(width / 266) * math.ceil(height / 266) <= 12:
            assert rows * 266 >= height or columns * 266 >= width


@pytest.mark.parametrize("size", [(60, 65), (130, 177), (300, 90), (1, 400)], ids=str)
def test_tiles_are_the_resized_image_and_the_crops_of_the_resized_image(size: tuple[int, int]) -> None:
    part, image = PairedCrops(margin=1), picture(*size)
    tiles, (rows, columns) = part.prepare(image, SMALL), part.crops(size[1], size[0], SMALL)
    assert len(tiles) == part.tiles_of(size[1], size[0], SMALL) == 1 + rows * columns

    def resized(height: int, width: int) -> torch.Tensor:
        found = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(found)).permute(2, 0, 1)

    large = resized(rows * 42 + 28, columns * 42 + 28)
    corners = [(42 * row, 42 * column) for row in range(rows) for column in range(columns)]
    assert torch.equal(tiles, torch.stack([resized(70, 70), *(large[:, y : y + 70, x : x + 70] for y, x in corners)]))


def test_one_crop_is_equal_to_the_whole_image() -> None:
    part, facts = PairedCrops(margin=1), SMALL
    tiles = part.prepare(picture(60, 65), facts)
    assert torch.equal(*tiles)
    module: Any = part.build(facts, facts.grid, 1)
    patches = torch.randn(1, 25, 4).expand(2, -1, -1)
    ((joined, grid),) = module(patches, width=65, height=60)
    assert grid == Grid(5, 5)
    assert torch.equal(joined, torch.cat([patches[0], patches[0]], -1))


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 2), (3, 4)], ids=str)
def test_without_overlap_the_patches_of_crops_are_those_of_the_large_copy_in_order(grid: tuple[int, int], margin: int) -> None:
    (rows, columns), step = grid, 5 - 2 * margin
    large = torch.stack(torch.meshgrid(*(torch.arange(n * step + 2 * margin) for n in grid), indexing="ij"), -1)
    crops = [large[y * step :, x * step :][:5, :5] for y in range(rows) for x in range(columns)]
    assert torch.equal(stitch(torch.stack(crops), rows, columns, margin), large)


def test_a_patch_gets_the_average_of_its_place_in_the_crops() -> None:
    part, module = PairedCrops(margin=1), PairedCrops(margin=1).build(SMALL, SMALL.grid, 1)
    assert module is not None
    rows, columns = part.crops(180, 130, SMALL)
    assert (rows, columns) == (3, 4)
    tiles = torch.randn(13, 25, 4, generator=torch.Generator().manual_seed(0))
    ((joined, _),) = module(tiles, width=180, height=130)
    large = stitch(tiles[1:].unflatten(1, (5, 5)), rows, columns, 1)  # 11 x 14 patches
    down, across = ([slice(n * side // 5, -(-(n + 1) * side // 5)) for n in range(5)] for side in large.shape[:2])
    expected = torch.stack([large[y, x].mean((0, 1)) for y in down for x in across])
    torch.testing.assert_close(joined, torch.cat([tiles[0], expected], -1))


def test_an_image_of_any_size_has_the_tokens_of_one_tile() -> None:
    part = PairedCrops()
    module = part.build(MOONDREAM, MOONDREAM.grid, 1)
    assert module is not None
    for width, height in sizes(300):
        ((joined, grid),) = module(torch.zeros(part.tiles_of(width, height, MOONDREAM), 729, 4), width=width, height=height)
        assert joined.shape == (729, 8)
        assert part.regions(width, height, MOONDREAM, MOONDREAM.grid) == [Region(grid)]


CROPS = replace(
    TINY, preprocessing={"paired_crops": {"max_crops": 4, "margin": 1}}, fusion={"tokens": {"prefix": "images"}},
    abstractor={"mlp": {"mlp_width": 80, "activation": "gelu_pytorch_tanh"}},
)  # fmt: skip


def test_the_mlp_reads_both_views_and_packed_samples_equal_separate_ones() -> None:
    model = tiny_model(CROPS)
    assert [tuple(model.abstractor[layer].weight.shape) for layer in (0, 2)] == [(80, 64), (32, 80)]
    samples = [of_own_shapes(model, [(30, 40), (60, 80)], 0), of_own_shapes(model, [(90, 31)], 1)]
    assert [one.image_token_counts.tolist() for one in samples] == [[16, 16], [16]]
    assert_packed_equals_separate(model, samples)
    batch = samples[0]
    features, _ = model.encode_images(batch)
    facts = model.plan.facts
    tiles = model.encoder(normalise(torch.stack(list(batch.pixels)), facts.mean, facts.std, torch.float32))
    rows, columns = model.plan.preprocessing.crops(80, 60, facts)
    large = stitch(tiles[-rows * columns :].unflatten(1, (4, 4)), rows, columns, 1)
    local = functional.adaptive_avg_pool2d(large.permute(2, 0, 1), 4).flatten(1).T
    expected = model.abstractor(torch.cat([tiles[-rows * columns - 1], local], -1))
    torch.testing.assert_close(features[16:], expected, atol=1e-5, rtol=1e-4)


def test_without_images_every_weight_of_the_image_half_gets_a_gradient() -> None:
    model = tiny_model(CROPS).train()
    batch = of_own_shapes(model, [(30, 40)])
    none: dict[str, Any] = {name: getattr(batch, name)[:0] for name in ("tile_counts", "image_sizes", "is_video", "of_sample")}
    features, _ = model.encode_images(replace(batch, pixels=torch.zeros(0, 3, 32, 32), **none))
    features.sum().backward()
    assert all(weight.grad is not None for part in (model.encoder, model.abstractor) for weight in part.parameters())


def test_videos_are_refused_because_a_frame_has_no_crops() -> None:
    with pytest.raises(ValueError, match="the preprocessing PairedCrops joins several tiles of an image to one"):
        image_plan(replace(CROPS, video="frames"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_crops": 0}, "max_crops must be 1 or more, not 0"),
        ({"margin": -1}, "margin must be 0 patches or more, not -1"),
        ({"margin": 2}, "margin must be less than half of the 4 patches of a crop's side, but it is 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(Exception, match=message):
        build_model(replace(TINY, preprocessing={"paired_crops": options}))


def test_a_class_token_and_a_width_below_1_are_refused() -> None:
    with pytest.raises(ValueError, match="paired_crops cannot use a class token"):
        PairedCrops(margin=1).build(replace(SMALL, extra=1), SMALL.grid, 8)
    with pytest.raises(Exception, match="mlp_width must be 1 or more, not 0"):
        make_part("abstractor", {"mlp": {"mlp_width": 0}})
