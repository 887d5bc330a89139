"""Slices give the pixels, grids and text of MiniCPM-V 4.6's processor, whose slices differ only in a factor of their sizes."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil
from transformers.models.minicpmv4_6.processing_minicpmv4_6 import MiniCPMV4_6Processor

from tests.train.parity import assert_packed_equals_separate, of_own_shapes
from tests.train.test_preprocessing import picture
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.written import Place, Run
from vlmdata_train.preprocessing.slices import Slices, slice_grid

HALF = (0.5, 0.5, 0.5)
FACTS = EncoderFacts(8, 980, 14, HALF, HALF)
SMALL: dict[str, Any] = {"side": 112, "square": 4}
OPTIONS: dict[str, Any] = {"do_rescale": False, "do_normalize": False}
RESAMPLER = make_part("abstractor", {"query_resampler": {"queries": 64, "grid_queries": False}})


def sizes(count: int) -> list[tuple[int, int]]:
    """Draw widths and heights, some of them extreme or with sides in whole ratios."""
    rng = random.Random(0)
    found = [(rng.randint(1, 3000), rng.choice([1, 7, rng.randint(1, 3000)])) for _ in range(count)]
    ratios = [(448 * width, 448 * height) for width in range(1, 7) for height in range(1, 7)]
    return [*found, *[(height, width) for width, height in found[:50]], *ratios, (1, 1), (448, 449), (20_000, 1), (1, 20_000)]


def tiles_of(found: Any) -> list[torch.Tensor]:
    """Return the tiles (3, H, W) that MiniCPM-V 4.6's processor gives as patches side by side."""
    pixels, tiles, start = found["pixel_values"][0], [], 0
    for rows, columns in found["target_sizes"].tolist():
        own = pixels[:, :, start : start + rows * columns * 14].unflatten(2, (rows, columns, 14))
        tiles.append(own.permute(0, 2, 1, 3, 4).flatten(3).flatten(1, 2))
        start += rows * columns * 14
    return tiles


@pytest.mark.parametrize("size", [(60, 70), (140, 200), (500, 110), (110, 500), (5, 900), (400, 400), (300, 77)], ids=str)
def test_pixels_equal_those_of_minicpm_v_4_6(size: tuple[int, int]) -> None:
    image, part = picture(*size), Slices(**SMALL)
    expected = tiles_of(
        MiniCPMV4_6ImageProcessorPil(scale_resolution=112, **OPTIONS)(images=Image.fromarray(image), return_tensors="pt")
    )
    found = part.prepare(image, FACTS)
    assert [tuple(tile.shape[1:]) for tile in found] == part.tile_sizes(size[1], size[0], FACTS)
    assert len(found) == len(expected) == part.tiles_of(size[1], size[0], FACTS)
    assert all(torch.equal(tile.float(), other.float()) for tile, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("most", [1, 2, 4, 9])
def test_the_grid_equals_that_of_minicpm_v_4_6(most: int) -> None:
    processor = MiniCPMV4_6ImageProcessorPil()
    for width, height in sizes(1500):
        expected = processor.get_sliced_grid((height, width), most, 448)
        assert slice_grid(width, height, 448, most) == (tuple(expected) if expected else None)


def test_the_grid_is_nearest_to_the_image_on_a_logarithmic_scale() -> None:
    for width, height in sizes(500):
        tiles = width * height / 448**2
        wanted = [n for n in range(2, 10) if abs(n - min(math.ceil(tiles), 9)) <= 1]
        grids = [(rows, columns) for rows in range(1, 10) for columns in range(1, 10) if rows * columns in wanted]
        errors = {grid: abs(math.log(width / height * grid[0] / grid[1])) for grid in grids}
        best = slice_grid(width, height, 448, 9)
        assert (best is None) == (tiles <= 1)
        assert best is None or errors[best] < min(errors.values()) + 1e-9


def test_the_sizes_of_minicpm_v_2_6_are_whole_patches() -> None:
    """The class of 4.6 has sizes in multiples of 4 patches. With patches of a quarter it has those of 2.5 and 2.6."""
    part, theirs = Slices(), MiniCPMV4_6ImageProcessorPil()
    enlarge: dict[str, Any] = {"scale_resolution": 448, "patch_size": 14 / 4, "downsample_mode": "16x", "allow_upscale": True}
    for width, height in sizes(500):
        grid = slice_grid(width, height, 448, 9)
        whole, *slices = part.tile_sizes(width, height, FACTS)
        assert whole == theirs.find_best_resize((height, width), **{**enlarge, "allow_upscale": grid is None})
        if grid is not None:
            refined = theirs.get_refine_size((height, width), list(grid), **enlarge)
            assert {(rows * grid[0], columns * grid[1]) for rows, columns in slices} == {refined}
        assert all(side % 14 == 0 for size in (whole, *slices) for side in size)


def test_regions_are_the_whole_image_and_the_slices_row_by_row() -> None:
    tokens = Grid(0, 0, extra=64)
    regions = Slices().regions(1344, 896, FACTS, lambda *_: tokens)
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert regions == [Region(tokens, is_overview=True), *(Region(tokens, row, column) for row, column in places)]


def test_the_planned_tokens_are_those_of_the_tiles() -> None:
    for width, height in sizes(300):
        regions = Slices().regions(width, height, FACTS, lambda *sides: RESAMPLER.grid_of(FACTS.grid(*sides)))
        assert sum(region.tokens for region in regions) == 64 * Slices().tiles_of(width, height, FACTS)
    tiles = Slices().prepare(np.zeros((700, 900, 3), np.uint8), FACTS)
    assert [region.grid for region in Slices().regions(900, 700, FACTS, FACTS.grid)] == [
        FACTS.grid(*tile.shape[1:]) for tile in tiles
    ]


@pytest.mark.parametrize("size", [(300, 200), (900, 700), (3000, 400)])
def test_the_text_equals_that_of_minicpm_v_4_6(size: tuple[int, int]) -> None:
    part, writing = Slices(square=4), make_part("writing", "slices")
    merge = make_part("abstractor", {"average_pool": {"factor": 4}})
    regions = part.regions(*size, FACTS, lambda *sides: merge.grid_of(FACTS.grid(*sides)))
    pieces = writing.write(regions, Place(2, "", ""))
    theirs = MiniCPMV4_6Processor.__new__(MiniCPMV4_6Processor)
    theirs.image_token, theirs.slice_mode = "<unk>", True
    for name, (start, end) in {"image": ("<image>", "</image>"), "slice": ("<slice>", "</slice>")}.items():
        setattr(theirs, f"{name}_start_token", start)
        setattr(theirs, f"{name}_end_token", end)
    theirs.image_id_start_token, theirs.image_id_end_token = "<image_id>", "</image_id>"
    inputs: Any = MiniCPMV4_6ImageProcessorPil()(images=Image.fromarray(picture(size[1], size[0])), return_tensors="np")
    replaced = theirs.replace_image_token(inputs, 0, image_token_divisor=16)
    expected = theirs._prepend_local_ids(["<unk>" * 3], ["", "", replaced], "<unk>")[2]
    assert "".join(piece if isinstance(piece, str) else "<unk>" * piece.tokens for piece in pieces) == expected


def written(options: dict[str, Any], regions: list[Region]) -> list[Any]:
    """Return the pieces of the second image of a sample, with the number of tokens instead of each run."""
    pieces = make_part("writing", {"slices": options}).write(regions, Place(1, "", ""))
    return [piece.tokens if isinstance(piece, Run) else piece for piece in pieces]


def test_the_slices_of_minicpm_v_2_5_are_between_two_tokens() -> None:
    tile = Region(Grid(0, 0, extra=96))
    regions = [
        replace(tile, is_overview=True),
        tile,
        replace(tile, column=1),
        replace(tile, row=1),
        replace(tile, row=1, column=1),
    ]
    one, whole = ["<image>", 96, "</image>"], ["<image_id>", "1", "</image_id>", "<image>", 96, "</image>"]
    assert written({"around": "grid", "number": False}, regions) == [*one, "<slice>", *one, *one, "\n", *one, *one, "</slice>"]
    assert written({"around": "grid", "number": False}, [tile]) == one
    assert written({}, regions[:1]) == whole
    assert written({}, regions[:3]) == [*whole, "<slice>", 96, "</slice>", "<slice>", 96, "</slice>"]


@pytest.mark.parametrize("token", [None, "<image>", "</slice>"])
def test_the_image_token_must_not_be_a_literal_token(token: str | None) -> None:
    with pytest.raises(Exception, match="image_token must be a token other than <image>, </image>"):
        make_part("writing", {"slices": {"image_token": token}})


@pytest.mark.parametrize("options", [{"max_slices": 0}, {"side": 0}, {"square": 0}])
def test_settings_below_1_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(Exception, match="max_slices, side and square must be 1 or more"):
        make_part("preprocessing", {"slices": options})


def test_a_model_with_slices_of_unequal_sizes_packs_exactly() -> None:
    tower = {
        "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 70,
        "patch_size": 7,
    }  # fmt: skip
    recipe = replace(
        TINY, encoder={"siglip_navit": {"config": tower}}, preprocessing={"slices": {"side": 35, "max_slices": 4}},
        abstractor={"query_resampler": {"queries": 3, "head_width": 8, "grid_queries": False}}, writing="slices",
    )  # fmt: skip
    model = tiny_model(recipe)
    samples = [of_own_shapes(model, [(33, 45), (60, 80)], 0), of_own_shapes(model, [(90, 31)], 1)]
    assert [one.tile_counts.tolist() for one in samples] == [[1 + 2, 1 + 4], [1 + 3]]
    assert len({tuple(tile.shape) for one in samples for tile in one.pixels}) > 2
    assert_packed_equals_separate(model, samples)
    ids = samples[0].input_ids[0].tolist()
    assert ids.count(model.tokenizer.convert_tokens_to_ids("<slice>")) == 6
    assert ids.count(model.image_token_id) == 3 * (3 + 5)
