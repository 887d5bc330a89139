"""HD crops give the grids, the token counts, the pixels and the order of features of Phi-3-Vision's published rules."""

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
from tests.train.tiny import TINY, randomise, tiny_model
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.parts import make_part
from vlmdata_train.preprocessing.hd_crops import HdCrops

HALF = (0.5, 0.5, 0.5)
PHI_3 = EncoderFacts(8, 336, 14, HALF, HALF)
SMALL = EncoderFacts(8, 56, 14, HALF, HALF)  # tiles of 4 x 4 patches, merged to 2 x 2
MERGE = make_part("abstractor", {"pixel_shuffle": {"factor": 2, "layers": 2}})


def sizes(count: int) -> list[tuple[int, int]]:
    """Draw widths and heights, some of them extreme."""
    rng = random.Random(0)
    random_sizes = [(rng.randint(1, 3000), rng.choice([1, 7, rng.randint(1, 3000)])) for _ in range(count)]
    return [*random_sizes, *[(height, width) for width, height in random_sizes[:50]], (20_000, 1), (1, 20_000), (1, 1)]


def planned(part: HdCrops, size: tuple[int, int], facts: EncoderFacts) -> int:
    """Return the number of tokens that are planned for an image of this (width, height), merged 2 x 2."""
    return sum(region.tokens for region in part.regions(*size, facts, lambda *sides: MERGE.grid_of(facts.grid(*sides))))


@pytest.mark.parametrize(("most", "square", "photo"), [(16, 2509, 1921), (4, 757, 757)])
def test_the_tokens_of_published_sizes_are_those_of_phi_3(most: int, square: int, photo: int) -> None:
    assert [planned(HdCrops(most), size, PHI_3) for size in [(336, 336), (1024, 768)]] == [square, photo]


@pytest.mark.parametrize("most", [1, 4, 16])
def test_the_grid_is_the_widest_that_has_enough_tiles(most: int) -> None:
    for width, height in sizes(500):
        long, short = max(width, height), min(width, height)
        columns = max(n for n in range(1, most + 1) if n * math.ceil(n / (long / short)) <= most)
        rows = max(math.ceil(int(columns * 336 / (long / short)) / 336), 1)
        grid = HdCrops(most).crops(width, height, 336)
        assert grid == ((rows, columns) if width >= height else (columns, rows))
        assert rows * columns <= most
        down, across = grid
        expected = (down * across + 1) * 144 + 1 + (down + 1) * 12
        assert planned(HdCrops(most), (width, height), PHI_3) == expected


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (56, 56), (20, 150), (150, 20), (1, 200)], ids=str)
def test_the_large_copy_is_resized_with_pillow_and_padded_with_white(size: tuple[int, int]) -> None:
    part, image = HdCrops(), picture(*size)
    rows, columns = part.crops(size[1], size[0], SMALL.image_size)
    tiles = part.prepare(image, SMALL)
    assert len(tiles) == part.tiles_of(size[1], size[0], SMALL) == rows * columns + 1
    large = tiles[1:].unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).numpy()  # H, W, 3
    source = Image.fromarray(image)
    if size[1] < size[0]:
        source, large = source.transpose(Image.Transpose.TRANSPOSE), large.transpose(1, 0, 2)
    inner = max(int(large.shape[1] / (source.width / source.height)), 1)
    top = (large.shape[0] - inner) // 2
    expected = source.resize((large.shape[1], inner), Image.Resampling.BILINEAR)
    assert np.array_equal(large[top : top + inner], np.asarray(expected))
    assert (large[:top] == 255).all() and (large[top + inner :] == 255).all()


def test_the_first_tile_shows_the_padded_picture_without_antialiasing() -> None:
    part = HdCrops()
    tiles = part.prepare(picture(30, 150), SMALL)
    rows, columns = part.crops(150, 30, 56)
    large = tiles[1:].unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)[None].float()
    expected = functional.interpolate(large, (56, 56), mode="bicubic")[0]
    assert (tiles[0].float() - expected.clamp(0, 255)).abs().max() <= 0.5


@pytest.mark.parametrize("most", [4, 16])
def test_the_arrangement_has_the_planned_number_of_tokens(most: int) -> None:
    part = HdCrops(most)
    module = part.build(SMALL, lambda *sides: MERGE.grid_of(SMALL.grid(*sides)), 3)
    assert module is not None
    for width, height in sizes(300):
        tiles = torch.zeros(part.tiles_of(width, height, SMALL), 4, 3)
        assert len(module(tiles, width=width, height=height)) == planned(part, (width, height), SMALL)


def test_vectors_after_the_mlp_equal_published_vectors_before_it() -> None:
    """Phi-3-Vision merges patches, puts its vectors between them, and applies the MLP to the whole sequence."""
    part, size = HdCrops(), (150, 90)
    abstractor = MERGE.build(SMALL, 12, Grid(4, 4))
    module: Any = part.build(SMALL, lambda *sides: MERGE.grid_of(SMALL.grid(*sides)), 12)
    randomise(abstractor)
    rows, columns = part.crops(*size, 56)
    assert (rows, columns) == (3, 5)
    patches = torch.randn(1 + rows * columns, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    row_end, separator = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))

    def merged(picture: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for y in range(0, picture.shape[0], 2):
            found += [picture[y : y + 2, x : x + 2].flatten() for x in range(0, picture.shape[1], 2)] + [row_end]
        return found

    large = torch.cat([torch.cat(list(patches[1 + row * columns :][:columns]), 1) for row in range(rows)])
    expected = abstractor.layers(torch.stack([*merged(large), separator, *merged(patches[0])]))
    module.row_end.data, module.separator.data = abstractor.layers(torch.stack([row_end, separator])).detach()
    found = module(abstractor(patches.flatten(1, 2)), width=size[0], height=size[1])
    torch.testing.assert_close(found, expected)


CROPS = replace(TINY, preprocessing={"hd_crops": {"max_crops": 4}}, abstractor={"pixel_shuffle": {"factor": 2, "layers": 2}})


def test_packed_samples_equal_separate_ones_and_both_vectors_learn() -> None:
    model = tiny_model(CROPS)
    samples = [of_own_shapes(model, [(40, 40), (20, 70)], 0), of_own_shapes(model, [(70, 30)], 1)]
    assert samples[0].image_token_counts.tolist() == [(4 + 1) * 4 + 1 + 3 * 2, (3 + 1) * 4 + 1 + 2 * 2]
    assert_packed_equals_separate(model, samples)
    model.logits(samples[0]).square().mean().backward()
    arrangement: Any = model.arrangement
    assert arrangement.row_end.grad.any() and arrangement.separator.grad.any()


@pytest.mark.parametrize(
    ("options", "facts", "message"),
    [
        ({"max_crops": 0}, SMALL, "max_crops must be 1 or more, not 0"),
        ({}, replace(SMALL, extra=1), "hd_crops cannot use a class token or latents"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], facts: EncoderFacts, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_part("preprocessing", {"hd_crops": options}).build(facts, facts.grid, 8)
