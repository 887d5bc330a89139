"""Sizes, pixels and times of `temporal_patches` equal those of the video processors of transformers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as their_video_size

from tests.train.parity import noise_clip
from tests.train.test_parity_video_qwen import recipe_of
from vlmdata_train.encoders.qwen2_vl import in_squares
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.model import build_model, image_plan
from vlmdata_train.model.parts import make_part

HALF = (0.5, 0.5, 0.5)


def grid_of(processor: Any, frames: int, height: int, width: int, cap: bool) -> list[int]:
    """Return the grid of frames, rows and columns that a processor makes of a video."""
    video = torch.zeros(frames, 3, height, width, dtype=torch.uint8)
    made = processor(videos=[video], do_sample_frames=False, cap_pixels_per_frame=cap, do_normalize=False, return_tensors="pt")
    return made["video_grid_thw"][0].tolist()


@pytest.mark.parametrize("cap", [False, True])
@pytest.mark.parametrize("family", ["Qwen2-VL", "Qwen3-VL"])
def test_grids_equal_those_of_the_video_processor(family: str, cap: bool) -> None:
    rng = random.Random(0)
    for _ in range(60):
        frames, height, width = rng.randint(2, 40), rng.randint(8, 300), rng.randint(8, 300)
        least, most, total = 3000, rng.randint(4000, 40_000), rng.randint(10, 200)
        limits: dict[str, Any] = {"min_pixels": least, "max_pixels": most}
        size = {"shortest_edge": least, "longest_edge": most}
        if family == "Qwen2-VL":
            processor: Any = Qwen2VLVideoProcessor(patch_size=7, size=size, max_video_tokens=total)
            limits |= {"max_total": int(total * 14 * 14 * 0.9)} if cap else {}
        else:
            processor = Qwen3VLVideoProcessor(patch_size=7, size=size, max_video_tokens=total)
            limits |= {"limits": "video"} | ({"max_frame": total * 14 * 14} if cap else {})
        part = make_part("video", {"temporal_patches": limits})
        rows, columns = part.tile_size(frames, width, height, EncoderFacts(8, 14, 7, HALF, HALF, frames_per_tile=2))
        assert [(frames + 1) // 2, rows // 7, columns // 7] == grid_of(processor, frames, height, width, cap), (frames, height)


def test_limits_on_all_frames_equal_qwen3_vl_for_random_sizes() -> None:
    rng = random.Random(0)
    part = make_part("video", {"temporal_patches": {"limits": "video", "min_pixels": 128 * 32**2, "max_pixels": 768 * 32**2}})
    facts = EncoderFacts(8, 32, 16, HALF, HALF, frames_per_tile=2)
    for _ in range(2000):
        frames, height, width = rng.randint(2, 800), rng.randint(1, 2000), rng.randint(1, 2000)
        if max(height, width) > 150 * min(height, width):
            continue
        theirs = their_video_size(frames, height, width, 2, 32, 128 * 32**2, 768 * 32**2)
        assert part.tile_size(frames, width, height, facts) == theirs


def test_tiles_of_an_odd_number_of_frames_equal_those_of_the_video_processor() -> None:
    model = build_model(recipe_of("Qwen2-VL"))
    clip = noise_clip(5, 24, 16)
    ours = in_squares(model.plan.video.prepare(clip.frames, model.plan), 4, 2, 2)
    processor: Any = Qwen2VLVideoProcessor(
        patch_size=4, size={"shortest_edge": 128, "longest_edge": 1024}, do_rescale=False, do_normalize=False,
        cap_pixels_per_frame=False,
    )  # fmt: skip
    video = torch.from_numpy(np.stack(clip.frames)).permute(0, 3, 1, 2)
    theirs = processor(videos=[video], do_sample_frames=False, return_tensors="pt")
    assert theirs["video_grid_thw"].tolist() == [[3, 6, 4]]
    assert torch.equal(ours, theirs["pixel_values_videos"].to(torch.uint8))


def test_resized_frames_differ_from_torchvision_by_rounding_only() -> None:
    model, clip = build_model(recipe_of("Qwen2-VL")), noise_clip(4, 90, 120)
    ours = in_squares(model.plan.video.prepare(clip.frames, model.plan), 4, 2, 2).float()
    processor: Any = Qwen2VLVideoProcessor(
        patch_size=4, size={"shortest_edge": 128, "longest_edge": 1024}, do_rescale=False, do_normalize=False,
        cap_pixels_per_frame=False,
    )  # fmt: skip
    video = torch.from_numpy(np.stack(clip.frames)).permute(0, 3, 1, 2)
    theirs = processor(videos=[video], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    difference = (ours - theirs.float()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.02


def test_time_of_a_tile_is_the_mean_of_its_frames() -> None:
    part = make_part("video", "temporal_patches")
    assert part.seconds([0.0, 1.0, 2.0, 4.0, 5.0]) == [0.5, 3.0, 5.0]
    assert part.tile_times([0.0, 1.0]) == [0.5]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"stack": 4}, "`stack: 4`, but a tile of this tower holds 2 frames"),
        ({"max_frame": 1000}, "max_frame has no effect with `limits: frame`"),
        ({"limits": "video", "max_total": 1000}, "max_total has no effect with `limits: video`"),
    ],
)
def test_settings_that_do_not_fit_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan = image_plan(recipe_of("Qwen2-VL"))
        make_part("video", {"temporal_patches": entry}).regions([0.0, 1.0], 20, 20, plan)
