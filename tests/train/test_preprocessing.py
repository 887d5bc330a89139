"""Preprocessing gives the pixels and sizes of transformers' image processors, and its token counts are exact.

Pixels are bit-equal to their Pillow backend. Their torchvision backend differs from it by 2 of 255 at most.
"""

import random
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_processing_utils import select_best_resolution as their_resolution
from transformers.models.clip import CLIPImageProcessor, CLIPImageProcessorPil
from transformers.models.deepseek_vl import DeepseekVLImageProcessor, DeepseekVLImageProcessorPil
from transformers.models.fuyu import FuyuImageProcessor, FuyuImageProcessorPil
from transformers.models.got_ocr2 import GotOcr2ImageProcessor, GotOcr2ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.idefics2 import Idefics2ImageProcessor, Idefics2ImageProcessorPil
from transformers.models.idefics3 import Idefics3ImageProcessor, Idefics3ImageProcessorPil
from transformers.models.llava import LlavaImageProcessor, LlavaImageProcessorPil
from transformers.models.llava_next import LlavaNextImageProcessor, LlavaNextImageProcessorPil, LlavaNextProcessor
from transformers.models.mllama import MllamaImageProcessor, MllamaImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import get_all_supported_aspect_ratios
from transformers.models.mllama.image_processing_pil_mllama import get_optimal_tiled_canvas as mllama_canvas
from transformers.models.siglip import SiglipImageProcessor, SiglipImageProcessorPil

from vlmdata.step import RecipeError
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.parts import make_part, part_names
from vlmdata_train.model.pixels import normalise
from vlmdata_train.preprocessing.anyres import Anyres, fitted, select_best_resolution, unpadded
from vlmdata_train.preprocessing.dynamic_tiles import nearest_grid
from vlmdata_train.preprocessing.tiles_by_aspect import TilesByAspect, all_grids, best_grid

SIDE = 56
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FACTS = EncoderFacts(width=8, image_size=SIDE, patch_size=14, mean=MEAN, std=STD)
SIZES = [(56, 56), (120, 77), (77, 120), (31, 200), (200, 31), (20, 25), (171, 170)]
SQUARE = {"height": SIDE, "width": SIDE}
SHORT = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE, "image_mean": MEAN, "image_std": STD}
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows, columns in Anyres().tiles]

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "centre_crop": (CLIPImageProcessorPil, CLIPImageProcessor, SHORT),
    "resize": (SiglipImageProcessorPil, SiglipImageProcessor, {"size": SQUARE, "resample": 3}),
    "resize_pad": (DeepseekVLImageProcessorPil, DeepseekVLImageProcessor, {"size": SQUARE}),
    "pad": (LlavaImageProcessorPil, LlavaImageProcessor, {**SHORT, "do_pad": True}),
    "anyres": (LlavaNextImageProcessorPil, LlavaNextImageProcessor, {**SHORT, "image_grid_pinpoints": PINPOINTS}),
    "dynamic_tiles": (GotOcr2ImageProcessorPil, GotOcr2ImageProcessor, {"size": SQUARE, "crop_to_patches": True}),
    "square_tiles": (
        Idefics3ImageProcessorPil, Idefics3ImageProcessor,
        {"size": {"longest_edge": 4 * SIDE}, "max_image_size": {"longest_edge": SIDE}},
    ),
    "tiles_by_aspect": (MllamaImageProcessorPil, MllamaImageProcessor, {"size": SQUARE}),
}  # fmt: skip
TORCHVISION_HAS_LANCZOS = tuple(map(int, version("torchvision").split(".")[:2])) >= (0, 27)
PARAMETERS: dict[str, dict[str, Any]] = {"square_tiles": {"longest": 4 * SIDE}}


def picture(height: int, width: int) -> np.ndarray:
    """Make a picture of noise and waves, on which every resampling filter gives another result."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(height * width).integers(0, 60, (height, width, 3))
    waves = np.stack([90 + 90 * np.sin(x / 5 + y / 9), 90 + 90 * np.cos(x / 17), 90 + 90 * np.sin(y / 3)], -1)
    return (waves + noise).astype(np.uint8)


def theirs(processor: Any, image: np.ndarray, **options: Any) -> torch.Tensor:
    """Return a processor's tiles (tiles, 3, H, W), without the zeros that stand for absent tiles."""
    found = processor(images=Image.fromarray(image), return_tensors="pt", **options)
    tiles = found["pixel_values"].flatten(0, -4)
    return tiles[: found["num_tiles"][0][0]] if "num_tiles" in found else tiles


def test_every_preprocessing_is_compared() -> None:
    elsewhere = ["edges", "hd_crops", "longest_edge", "native", "overlapping_crops", "paired_crops", "slices", "smart_size"]
    assert sorted([*CASES, *elsewhere]) == part_names("preprocessing")


@pytest.mark.parametrize("name", sorted(CASES))
def test_pixels_equal_those_of_the_image_processor(name: str) -> None:
    pillow, torchvision, options = CASES[name]
    part = make_part("preprocessing", {name: PARAMETERS.get(name, {})})
    raw = {"do_rescale": False, "do_normalize": False}
    for size in SIZES:
        image = picture(*size)
        tiles = part.prepare(image, FACTS)
        expected = theirs(pillow(**options), image, **raw)
        assert tuple(tiles.shape) == tuple(expected.shape)
        assert len(tiles) == part.tiles_of(size[1], size[0], FACTS)
        assert torch.equal(tiles.float(), expected.float())
        if name == "square_tiles" and not TORCHVISION_HAS_LANCZOS:
            continue  # where the processor uses another filter
        near = theirs(torchvision(**options), image, **raw).float()
        assert (tiles.float() - near).abs().max() <= 2


def test_native_pixels_equal_those_of_fuyu_up_to_the_last_patch_of_the_image() -> None:
    part = make_part("preprocessing", {"native": {"max_height": 60, "max_width": 90}})
    for size in [(40, 50), (100, 77), (30, 200), (60, 90)]:
        image = picture(*size)
        tiles = part.prepare(image, FACTS)
        for processor in (FuyuImageProcessorPil, FuyuImageProcessor):
            fuyu = processor(size={"height": 60, "width": 90})
            found = fuyu.preprocess(Image.fromarray(image), do_rescale=False, do_normalize=False, return_tensors="pt")
            expected = found["images"][0][0][None, :, : tiles.shape[2], : tiles.shape[3]].float()
            # the reference ends at the border of the canvas
            filled = tiles[:, :, : expected.shape[2], : expected.shape[3]].float()
            assert (filled - expected).abs().max() <= (0 if processor is FuyuImageProcessorPil else 1)
        expected_grid = Grid(tiles.shape[2] // 14, tiles.shape[3] // 14)
        assert part.regions(size[1], size[0], FACTS, FACTS.grid) == [Region(expected_grid)]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_pixels_of_any_shape_equal_those_of_idefics2(split: bool) -> None:
    facts, rng = EncoderFacts(8, 980, 14, MEAN, STD), random.Random(0)
    options = {"do_rescale": False, "do_normalize": False, "do_pad": False, "do_image_splitting": split}
    small = [(50, 110, rng.randint(2, 300), rng.choice([2, 3, rng.randint(2, 300)])) for _ in range(150)]
    for shortest, longest, height, width in [*small, (378, 980, 700, 533), (378, 980, 2, 1500), (378, 980, 1999, 751)]:
        part = make_part("preprocessing", {"edges": {"shortest": shortest, "longest": longest, "split": split}})
        image = picture(height, width)
        tiles, limits = part.prepare(image, facts), {"shortest_edge": shortest, "longest_edge": longest}
        for processor in (Idefics2ImageProcessorPil, Idefics2ImageProcessor):
            found = processor(size=limits, **options)(images=[Image.fromarray(image)])["pixel_values"][0]
            expected = [torch.as_tensor(np.asarray(one)).float() for one in found]
            assert [tile.shape for tile in tiles] == [one.shape for one in expected]
            most = max(float((tile - one).abs().max()) for tile, one in zip(tiles, expected, strict=True))
            assert most <= (0 if processor is Idefics2ImageProcessorPil else 2)
        sizes = part.tile_sizes(width, height, facts)
        assert sizes == [tuple(tile.shape[1:]) for tile in tiles] and len(sizes) == part.tiles_of(width, height, facts)
        patches = sum((rows // 14) * (columns // 14) for rows, columns in sizes)
        assert tokens_of(part, width, height, facts) == patches


def test_an_image_of_one_pixel_is_split_into_five_equal_tiles() -> None:
    tiles = make_part("preprocessing", {"edges": {"shortest": 20, "longest": 50, "split": True}}).prepare(picture(1, 1), FACTS)
    assert [tuple(tile.shape) for tile in tiles] == [(3, 20, 20)] * 5
    assert all(torch.equal(tile, tiles[0]) for tile in tiles)


@pytest.mark.parametrize(
    ("options", "message"), [({"longest": 9, "shortest": 10}, "at most longest"), ({"shortest": 9}, "a patch")]
)
def test_edges_that_cannot_hold_a_patch_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises((ValueError, RecipeError), match=message):
        make_part("preprocessing", {"edges": options}).build(FACTS, FACTS.grid, 8)


def test_normalised_pixels_equal_those_of_the_image_processor() -> None:
    image = picture(77, 120)
    tiles = make_part("preprocessing", "centre_crop").prepare(image, FACTS)
    for processor in (CLIPImageProcessorPil(**SHORT), CLIPImageProcessor(**SHORT)):
        difference = normalise(tiles, MEAN, STD, torch.float32) - theirs(processor, image)
        assert difference.abs().max() < (1e-5 if isinstance(processor, CLIPImageProcessorPil) else 0.04)


def sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Draw widths and heights, some of them extreme."""
    rng = random.Random(seed)
    return [(rng.randint(1, 3000), rng.choice([1, 7, rng.randint(1, 3000)])) for _ in range(count)]


def test_the_best_resolution_keeps_most_pixels_with_the_least_waste() -> None:
    canvases = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
    for width, height in sizes(2000):
        best = select_best_resolution(width, height, canvases)
        assert best == tuple(their_resolution((height, width), canvases))

        def kept(canvas: tuple[int, int], width: int = width, height: int = height) -> int:
            scale = min(canvas[1] / width, canvas[0] / height)
            return min(int(width * scale) * int(height * scale), width * height)

        most = [canvas for canvas in canvases if kept(canvas) == max(map(kept, canvases))]
        assert best in most
        assert best[0] * best[1] == min(rows * columns for rows, columns in most)


def test_the_nearest_grid_equals_that_of_internvl() -> None:
    for width, height in sizes(2000):
        columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), 1, 12)
        assert nearest_grid(width, height, 448, 1, 12) == (rows, columns)


def tokens_of(part: Any, width: int, height: int, facts: EncoderFacts) -> int:
    """Return the number of features that a preprocessing plans for an image of this size."""
    return sum(region.tokens for region in part.regions(width, height, facts, facts.grid))


def test_the_grid_that_fits_best_equals_that_of_llama_3_2_vision() -> None:
    for most in (1, 3, 4, 6):
        assert list(all_grids(most)) == get_all_supported_aspect_ratios(most)
    for side in (56, 560):
        for width, height in [*sizes(2000), (side, side), (2 * side, side), (2 * side + 1, 2 * side)]:
            rows, columns = best_grid(width, height, side, all_grids(4))
            assert (rows * side, columns * side) == mllama_canvas.__wrapped__(height, width, 4, side)


def test_tiles_by_aspect_equal_those_of_llama_3_2_vision_on_many_sizes() -> None:
    part, rng = TilesByAspect(), random.Random(0)
    processor = MllamaImageProcessorPil(size=SQUARE, do_rescale=False, do_normalize=False)
    found = set()
    for _ in range(400):
        width, height = rng.randint(1, 300), rng.choice([1, 9, rng.randint(1, 300)])
        image = picture(height, width)
        theirs = processor(images=Image.fromarray(image), return_tensors="np")
        grid = part.tile_grid(width, height, FACTS)
        assert all_grids(4).index(grid) + 1 == theirs["aspect_ratio_ids"].item()
        assert np.array_equal(part.prepare(image, FACTS), theirs["pixel_values"][0, 0, : theirs["num_tiles"][0][0]])
        found.add(grid)
    assert found == set(all_grids(4))


def test_a_tower_that_reads_whole_images_determines_the_grids() -> None:
    facts = replace(FACTS, tile_grids=((1, 1), (1, 2)))
    assert [TilesByAspect().tile_grid(*size, facts) for size in [(56, 500), (500, 56)]] == [(1, 1), (1, 2)]


def test_anyres_counts_tokens_as_llava_next_does() -> None:
    part = Anyres()
    facts = EncoderFacts(width=8, image_size=336, patch_size=14, mean=MEAN, std=STD)
    pinpoints = [[rows * 336, columns * 336] for rows, columns in part.tiles]
    counter = LlavaNextProcessor.__new__(LlavaNextProcessor)
    counter.image_processor = LlavaNextImageProcessor(image_grid_pinpoints=pinpoints)
    counter.patch_size, counter.num_additional_image_tokens = 14, 0
    most = 0
    for width, height in sizes(500):
        ours = tokens_of(part, width, height, facts)
        assert ours == counter._get_number_of_features(height, width, 336, 336)
        most = max(most, ours)
    assert most <= 2928, "2,304 of four tiles, 48 newlines and 576 of the base"
    assert tokens_of(part, 672, 672, facts) == 2928


def test_the_arrangement_gives_the_planned_number_of_tokens() -> None:
    for part in (Anyres(), Anyres(max_tiles=1)):
        module = part.build(FACTS, FACTS.grid, 4)
        assert module is not None
        for width, height in sizes(60, seed=1):
            if max(width, height) > 40 * min(width, height):
                continue
            tiles = torch.zeros(part.tiles_of(width, height, FACTS), 16, 4)
            assert len(module(tiles, width=width, height=height)) == tokens_of(part, width, height, FACTS)


def test_unpadding_removes_every_token_that_holds_only_padding() -> None:
    for width, height in sizes(300, seed=2):
        canvas = select_best_resolution(width, height, [(rows * SIDE, columns * SIDE) for rows, columns in Anyres().tiles])
        rows, columns = (side // 14 for side in canvas)
        down, across = unpadded(width, height, rows, columns)
        inner = fitted(width, height, canvas)
        top, left = (canvas[0] - inner[0]) / 2, (canvas[1] - inner[1]) / 2
        assert down.start * 14 <= top + 14
        assert across.start * 14 <= left + 14
