"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL give the logits, gradients and positions of transformers for images and videos together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2VLVideoProcessor

from tests.train.parity import (
    IMAGE_ID,
    Clip,
    assert_generation_equals_forward,
    assert_packed_equals_separate,
    assert_same_gradients,
    copy_weights,
    noise_clip,
    of_media,
    randomised,
)
from tests.train.test_parity_qwen import FAMILIES
from tests.train.tiny import randomise
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import build_model, load_tokenizer
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.pixels import normalise

LIMITS = {"min_pixels": 128, "max_pixels": 1024}
TIMED = {
    "between": {
        "start": "<|vision_start|>", "end": "<|vision_end|>", "frame": "<{seconds} seconds>", "video_token": "<video>",
    }
}  # fmt: skip
TOGETHER = {"limits": "video", "min_pixels": 128, "max_pixels": 6000, "spacing": "ends", "multiple": 1}
VIDEOS: dict[str, dict[str, Any]] = {
    "Qwen2-VL": {"video": {"temporal_patches": LIMITS}, "writing": {"plain": {"video_token": "<video>"}}},
    "Qwen2.5-VL": {"video": {"temporal_patches": LIMITS}, "writing": {"plain": {"video_token": "<video>"}}},
    "Qwen3-VL": {"video": {"temporal_patches": TOGETHER}, "writing": TIMED},
}
IMAGE = np.random.default_rng(5).integers(0, 256, (40, 22, 3), dtype=np.uint8)
MEDIA = [noise_clip(9, 30, 22, step=0.75, seed=1), IMAGE, noise_clip(4, 9, 33, step=2.0, seed=2)]


def recipe_of(family: str, **positions: Any) -> ModelRecipe:
    """Return the family's recipe with a video part, and with these parameters of its positions."""
    recipe = replace(FAMILIES[family][0], **VIDEOS[family])
    ((name, own),) = recipe.positions.items()
    seconds = {"tokens_per_second": 2} if family == "Qwen2.5-VL" else {}
    return replace(recipe, positions={name: {**own, **seconds, **positions}})


def reference_of(family: str, recipe: ModelRecipe) -> Any:
    """Return the family's class of transformers with random weights."""
    _, known, vision, text = FAMILIES[family]
    video = load_tokenizer(recipe).convert_tokens_to_ids("<video>")
    more = {"tokens_per_second": 2} if family == "Qwen2.5-VL" else {}
    ids = {"image_token_id": IMAGE_ID, "video_token_id": video}
    config = known.their_config(vision_config={**vision, **more}, text_config=text, **ids)
    return randomised(known.their_class(config))


def inputs_of(model: Any, batch: Batch) -> dict[str, Any]:
    """Return the inputs of transformers' class for a batch: patches and grids of images and of videos, and kinds of tokens."""
    facts, counts = model.plan.facts, batch.tile_counts.tolist()
    found: dict[str, Any] = {"patches": ([], []), "grids": ([], [])}
    for is_video, own in zip(batch.is_video.tolist(), _split(batch.pixels, counts), strict=True):
        tiles = normalise(torch.stack(own), facts.mean, facts.std, torch.float32)
        frames = tiles.unflatten(1, (-1, 3)).expand(-1, 2, -1, -1, -1).flatten(0, 1)  # an image is two equal frames
        found["patches"][is_video].append(Qwen2VLVideoProcessor().patchify(frames[None], 4, 2, 2)[0][0])
        found["grids"][is_video].append([len(own), tiles.shape[2] // 4, tiles.shape[3] // 4])
    kinds = (batch.input_ids == IMAGE_ID).int() + 2 * (batch.input_ids == model.video_token_id).int()
    names = ("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")
    made: dict[str, Any] = {"mm_token_type_ids": kinds}
    for (pixels, grid), patches, grids in zip(names, found["patches"], found["grids"], strict=True):
        if patches:
            made |= {pixels: torch.cat(patches), grid: torch.tensor(grids)}
    return made


def _split(tiles: Any, counts: list[int]) -> list[list[Tensor]]:
    ends = np.cumsum(counts)
    return [list(tiles)[end - count : end] for end, count in zip(ends, counts, strict=True)]


def seconds_of(family: str, media: list[Any]) -> dict[str, Any]:
    """Return the distance in seconds of the tiles of each video, for Qwen2.5-VL."""
    distances = [2 * (clip.times[1] - clip.times[0]) for clip in media if isinstance(clip, Clip)]
    return {"second_per_grid_ts": torch.tensor(distances)} if family == "Qwen2.5-VL" else {}


@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_videos_equal_transformers(family: str) -> None:
    recipe = recipe_of(family, time_counts=False)
    media = [noise_clip(8, 30, 22, step=0.75, seed=1), IMAGE, noise_clip(4, 9, 33, step=2.0, seed=2)]
    media = MEDIA if family == "Qwen3-VL" else media
    reference, our_name = reference_of(family, recipe), FAMILIES[family][1].our_name
    model = copy_weights(reference, recipe, our_name, unlike=["tokens_per_second"])  # the tower does not use this number
    batch = of_media(model, media)
    inputs = inputs_of(model, batch) | seconds_of(family, media)
    places, _ = reference.model.get_rope_index(
        batch.input_ids, inputs["mm_token_type_ids"], inputs["image_grid_thw"], inputs["video_grid_thw"],
        **seconds_of(family, media),
    )  # fmt: skip
    assert torch.equal(model.place(batch), places)
    ours, theirs = model.logits(batch), reference(input_ids=batch.input_ids, **inputs).logits
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    for logits in (ours, theirs):
        logits.square().mean().backward()
    assert_same_gradients(model, reference, our_name)
    swapped = replace(batch, pixels=[tile.flip(0) if len(tile) == 6 else tile for tile in batch.pixels])
    assert (model.logits(swapped) - ours).abs().max() > 0.01, "the order of the frames of a tile has no effect"


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_videos_equal_separate_ones(family: str) -> None:
    model = build_model(recipe_of(family)).eval()
    randomise(model)
    samples = [of_media(model, MEDIA, seed=1), of_media(model, [noise_clip(5, 16, 40, seed=3)], seed=2)]
    assert_packed_equals_separate(model, [*samples, of_media(model, [IMAGE], seed=3)])


@pytest.mark.parametrize("time_counts", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_after_videos_equals_the_full_forward_pass(family: str, time_counts: bool) -> None:
    model = build_model(recipe_of(family, time_counts=time_counts)).eval()
    randomise(model)
    assert_generation_equals_forward(model, of_media(model, MEDIA, seed=3))


def test_text_after_a_video_starts_after_its_largest_position() -> None:
    model = build_model(recipe_of("Qwen2.5-VL"))
    batch = of_media(model, [noise_clip(8, 16, 16, step=0.75)])
    time, row, column = model.place(batch)[:, 0]
    video = batch.input_ids[0] == model.video_token_id
    assert batch.grids.tolist() == [[4, 2, 2]] and batch.intervals.tolist() == [1.5]
    assert time.tolist() == [*range(6), *[6] * 4, *[9] * 4, *[12] * 4, *[15] * 4, *range(16, 22)]
    assert row[video].tolist() == [6, 6, 7, 7] * 4 and column[video].tolist() == [6, 7, 6, 7] * 4


def test_times_in_decimal_fractions_do_not_shift_a_position() -> None:
    model = build_model(recipe_of("Qwen2.5-VL"))
    clip = Clip(noise_clip(42, 8, 8).frames, [0.175 * number + 7.3 for number in range(42)])  # 0.7 positions for each tile
    batch = of_media(model, [clip])
    time = model.place(batch)[0, 0, batch.input_ids[0] == model.video_token_id]
    assert time.tolist()[::4] == [6 + 7 * number // 10 for number in range(21)]


@pytest.mark.parametrize(("time_counts", "last"), [(True, 44), (False, 13)])
def test_the_next_token_follows_the_last_one_after_a_long_video(time_counts: bool, last: int) -> None:
    model = build_model(recipe_of("Qwen2.5-VL", time_counts=time_counts))
    batch = of_media(model, [noise_clip(18, 8, 8)])  # 9 tiles of 2 x 2 tokens, 2 s apart: times 6 to 38
    places = model.place(batch)
    assert places[:, 0, -1].tolist() == [last] * 3
    assert model.positions.after(places, torch.tensor([places.shape[2]])).tolist() == [last + 1]
