"""Chosen frames equal those of the samplers in transformers' video processors, for timelines with every frame of a video."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import (
    InternVLVideoProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMVideoProcessor,
)
from transformers.video_utils import VideoMetadata

from vlmdata_train.model.parts import make_part

Choice = dict[str, Any]
QWEN = {"min_frames": 4, "max_frames": 64}
CASES: list[tuple[type, Choice, Choice, str]] = [
    (LlavaOnevisionVideoProcessor, {"fps": 1}, {"fps": 1, "spacing": "starts"}, "frames"),
    (LlavaOnevisionVideoProcessor, {"fps": 2.5}, {"fps": 2.5, "spacing": "starts"}, "frames"),
    (LlavaOnevisionVideoProcessor, {"num_frames": 8}, {"count": 8, "spacing": "starts"}, "frames"),
    (InternVLVideoProcessor, {"num_frames": 8}, {"count": 8, "spacing": "middles"}, "frames"),
    (InternVLVideoProcessor, {"fps": 2}, {"fps": 2, "spacing": "middles"}, "frames"),
    (Qwen2VLVideoProcessor, {"fps": 2, **QWEN}, {"fps": 2, **QWEN}, "temporal_patches"),
    (Qwen2VLVideoProcessor, {"fps": 1, "min_frames": 4, "max_frames": 9}, {"fps": 1, "max_frames": 9}, "temporal_patches"),
    (Qwen2VLVideoProcessor, {"num_frames": 12}, {"count": 12}, "temporal_patches"),
    (Qwen3VLVideoProcessor, {"fps": 2, **QWEN}, {"fps": 2, **QWEN, "multiple": 1, "spacing": "ends"}, "temporal_patches"),
    (Qwen3VLVideoProcessor, {"fps": 1, **QWEN}, {"fps": 1, **QWEN, "multiple": 1, "spacing": "ends"}, "temporal_patches"),
    (SmolVLMVideoProcessor, {"fps": 1, "num_frames": 64}, {"fps": 1, "max_frames": 64, "spacing": "ends_down"}, "frames"),
    (SmolVLMVideoProcessor, {"fps": 2, "num_frames": 10}, {"fps": 2, "max_frames": 10, "spacing": "ends_down"}, "frames"),
]


@pytest.mark.parametrize(("kind", "theirs", "ours", "name"), CASES)
def test_the_same_frames_are_chosen(kind: Any, theirs: Choice, ours: Choice, name: str) -> None:
    sampler, part, compared, differ = kind(), make_part("video", {name: ours}), 0, []
    for rate in (24, 30):
        for frames in range(2, 401):
            metadata = VideoMetadata(total_num_frames=frames, fps=rate, duration=frames / rate)
            try:
                expected = [int(number) for number in sampler.sample_frames(metadata=metadata, **theirs)]
            except (ValueError, ZeroDivisionError, RuntimeError):  # the video has too few frames for the request
                continue
            compared += 1
            chosen = part.choose([number / rate for number in range(frames)])
            if chosen != expected:
                differ.append((rate, frames))
                assert expected[:-1] == chosen
    assert compared > 300
    # an error of rounding in torch.arange adds a frame, so that the number of frames is odd
    is_qwen2_at_2_fps = kind is Qwen2VLVideoProcessor and theirs.get("fps") == 2
    assert differ == ([(24, 367), (24, 382), (30, 230), (30, 237), (30, 359)] if is_qwen2_at_2_fps else [])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"max_frames": 2, "min_frames": 4}, "max_frames must be at least min_frames and multiple"),
        ({"count": 0}, "count"),
        ({"spacing": "random"}, "spacing"),
    ],
)
def test_wrong_settings_are_refused(entry: Choice, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_part("video", {"frames": entry})
