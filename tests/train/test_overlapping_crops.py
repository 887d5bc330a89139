"""Overlapping crops give the pixels, the grids and the order of patches of Molmo 2's processor, and exact token counts."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor, compute_crop_geometry
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor

from tests.train.test_preprocessing import picture
from tests.train.tiny import TINY
from vlmdata_train.abstractors.attention_pool import AttentionPool, padded_squares
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.model import build_model
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.pixels import resize
from vlmdata_train.model.written import Place, Run
from vlmdata_train.preprocessing.overlapping_crops import OverlappingCrops

HALF = (0.5, 0.5, 0.5)
MOLMO, MOLMO_2 = EncoderFacts(8, 336, 14, HALF, HALF), EncoderFacts(8, 378, 14, HALF, HALF)
SMALL = EncoderFacts(8, 70, 14, HALF, HALF)  # crops of 5 x 5 patches, so that with margin 1 squares cross the borders of crops
SECOND: dict[str, Any] = {"keep_aspect": False, "antialias": False, "max_crops": 8}
POOL = AttentionPool()


def processor(side: int, margin: int) -> Any:
    """Return Molmo 2's image processor for crops of `side` px, without normalisation."""
    return Molmo2ImageProcessor(
        size={"height": side, "width": side}, overlap_margins=[margin, margin], do_rescale=False, do_normalize=False
    )


def sizes(count: int) -> list[tuple[int, int]]:
    """Draw widths and heights, some of them extreme."""
    rng = random.Random(0)
    random_sizes = [(rng.randint(1, 3000), rng.choice([1, 112, rng.randint(1, 3000)])) for _ in range(count)]
    return [*random_sizes, (112, 112), (112, 500), (113, 112), (1, 1), (378, 378), (644, 378), (645, 378), (20_000, 9_000)]


def planned(part: Any, size: tuple[int, int], facts: EncoderFacts) -> int:
    """Return the number of tokens that are planned for an image of this (width, height), pooled 2 x 2."""
    return sum(region.tokens for region in part.regions(*size, facts, lambda *sides: POOL.grid_of(facts.grid(*sides))))


@pytest.mark.parametrize("size", [(70, 70), (130, 77), (77, 200), (31, 200), (20, 25), (300, 300), (1, 90)], ids=str)
def test_pixels_equal_those_of_molmo_2(size: tuple[int, int]) -> None:
    part, image = OverlappingCrops(**SECOND, margin=1), picture(*size)
    found = processor(70, 1)(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
    expected = found.unflatten(1, (5, 5)).unflatten(3, (14, 14, 3)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    tiles = part.prepare(image, SMALL)
    assert len(tiles) == part.tiles_of(size[1], size[0], SMALL)
    assert torch.equal(tiles.float(), expected.float())


@pytest.mark.parametrize(("facts", "most"), [(MOLMO, 12), (MOLMO_2, 8)])
def test_grids_equal_those_of_molmo_2_for_any_size(facts: EncoderFacts, most: int) -> None:
    part = OverlappingCrops(max_crops=most)
    for width, height in sizes(2000):
        expected = compute_crop_geometry(height, width, most, [4, 4], facts.image_size, 14)
        assert (*part.crops(width, height, facts), *part.canvas(width, height, facts)) == expected


def test_the_tokens_of_published_sizes_are_those_of_molmo_2() -> None:
    part = OverlappingCrops(**SECOND)
    assert [planned(part, size, MOLMO_2) for size in [(336, 336), (1024, 768)]] == [392, 955]
    patches = processor(378, 4).get_number_of_image_patches
    assert [planned(part, size, MOLMO_2) for size in sizes(300)] == [patches(height, width) for width, height in sizes(300)]


def numbered(part: OverlappingCrops, size: tuple[int, int], facts: EncoderFacts) -> list[tuple[Tensor, Grid]]:
    """Return the joined pictures of an image of this (width, height) whose patches are their numbers, from 1."""
    tiles, side = part.tiles_of(*size, facts), facts.image_size // facts.patch_size
    numbers = torch.arange(1, tiles * side**2 + 1).view(tiles, side**2, 1)
    module = part.build(facts, facts.grid, 1)
    assert module is not None
    return module(numbers, width=size[0], height=size[1])


@pytest.mark.parametrize("size", [(70, 70), (130, 77), (77, 200), (31, 200), (300, 300)], ids=str)
def test_squares_consist_of_the_patches_that_molmo_2_pools(size: tuple[int, int]) -> None:
    pictures = numbered(OverlappingCrops(**SECOND, margin=1), size, SMALL)
    squares = [padded_squares(patches[None], grid, 2)[0, :, :, 0] for patches, grid in pictures]
    image = Image.fromarray(picture(size[1], size[0]))
    expected = processor(70, 1)(images=image, return_tensors="pt")["image_token_pooling"]
    assert torch.equal(torch.cat(squares), expected + 1)  # 0 stands for padding


def test_molmo_pools_no_patches_of_different_crops() -> None:
    (_, grid), (patches, large) = numbered(OverlappingCrops(), (1500, 900), MOLMO)
    crop_of = (padded_squares(patches[None], large, 2)[0, :, :, 0] - 1) // grid.tokens
    assert (crop_of == crop_of[:, :1]).all()
    assert len(crop_of.unique()) == OverlappingCrops().tiles_of(1500, 900, MOLMO) - 1


@pytest.mark.parametrize("facts", [MOLMO, MOLMO_2, SMALL], ids=lambda facts: str(facts.image_size))
def test_joined_crops_have_the_planned_number_of_patches(facts: EncoderFacts) -> None:
    part = OverlappingCrops(margin=1 if facts is SMALL else 4)
    for size in sizes(300):
        pictures = numbered(part, size, facts)
        assert [Region(grid) for _, grid in pictures] == [
            replace(region, is_overview=False) for region in part.regions(*size, facts, facts.grid)
        ]
        assert all(len(patches) == len(patches.unique()) == grid.tokens for patches, grid in pictures)


def test_one_crop_shows_the_whole_image() -> None:
    for part in (OverlappingCrops(), OverlappingCrops(**SECOND)):
        tiles = part.prepare(picture(50, 60), MOLMO_2)
        assert len(tiles) == 2
        assert torch.equal(*tiles)


def test_molmo_keeps_the_aspect_ratio_and_pads_with_black() -> None:
    image = np.full((40, 80, 3), 255, np.uint8)
    whole = OverlappingCrops(margin=1).prepare(image, SMALL)[0]
    assert (whole[:, :17] == 0).all() and (whole[:, 52:] == 0).all()
    assert torch.equal(whole[:, 17:52], torch.from_numpy(resize(image, 35, 70).copy()).permute(2, 0, 1))


@pytest.mark.parametrize("ends", [True, False])
def test_the_text_equals_that_of_molmo_2(ends: bool) -> None:
    rows = {"row_end": "<im_col>", "start": "<im_start>", "overview_start": "<low_res_im_start>", "end": "<im_end>"}
    model = build_model(replace(TINY, writing={"rows": {**rows, "image_token": "<im_patch>", "ends_overview_rows": ends}}))
    written = Molmo2Processor.__new__(Molmo2Processor)
    written.image_use_col_tokens, written.use_single_crop_col_tokens, written.use_single_crop_start_token = True, ends, True
    part, patches = OverlappingCrops(**SECOND), processor(378, 4)
    for width, height in [(336, 336), (1024, 768), (3000, 200)]:
        regions = part.regions(width, height, MOLMO_2, lambda *sides: POOL.grid_of(MOLMO_2.grid(*sides)))
        pieces = model.plan.writing.write(regions, Place(0, "", ""))
        ours = "".join(piece if isinstance(piece, str) else "<im_patch>" * piece.tokens for piece in pieces)
        grids, _ = patches.get_image_grid_and_crops(height, width)
        assert ours == written.replace_image_token({"image_grids": [grids]}, 0)
        ids = model.tokenizer(ours)["input_ids"]
        assert ids.count(model.image_token_id) == sum(piece.tokens for piece in pieces if isinstance(piece, Run))
        assert len(ids) == ours.count("<"), "each name is one token"


@pytest.mark.parametrize(
    ("options", "facts", "message"),
    [
        ({"max_crops": 0}, SMALL, "max_crops must be 1 or more, not 0"),
        ({"margin": -1}, SMALL, "margin must be 0 patches or more, not -1"),
        ({"margin": 3}, SMALL, "margin must be less than half of the 5 patches of a crop's side, but it is 3"),
        ({"margin": 1}, replace(SMALL, extra=1), "overlapping_crops cannot use a class token"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], facts: EncoderFacts, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_part("preprocessing", {"overlapping_crops": options}).build(facts, facts.grid, 8)
