"""Scenes and near-equal frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.video.made_videos import photo, read, write_video
from vlmdata.video.near_equal import are_near, look_of

NOISE = np.random.default_rng(0)


def film(lengths: list[int]) -> list[np.ndarray]:
    """Return a scene of each length in frames. Its frames differ by a little noise."""
    scenes = [photo(seed) for seed in range(len(lengths))]
    return [
        np.clip(scene.astype(int) + NOISE.integers(-3, 4, scene.shape), 0, 255).astype(np.uint8)
        for scene, length in zip(scenes, lengths, strict=True)
        for _ in range(length)
    ]


@pytest.mark.parametrize(("which", "times"), [("first", [0.0, 2.0, 5.0]), ("middle", [1.0, 3.4, 5.4])])
def test_each_scene_gives_a_frame(which: str, times: list[float], tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", film([20, 30, 10]))
    found = [one.time_s for one in read(path, scenes=which)[1]]
    assert found == pytest.approx(times, abs=0.31 if which == "middle" else 0.001)


def test_a_flash_of_less_than_0_6_seconds_begins_no_scene(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", film([20, 2, 20]))
    assert [one.time_s for one in read(path, scenes="first")[1]] == [0.0, 2.0]


def test_a_slow_change_begins_no_scene(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 5 * n, np.uint8) for n in range(50)]
    write_video(path := tmp_path / "a.mp4", frames)
    assert len(read(path, scenes="first")[1]) == 1


def test_frames_near_to_the_last_kept_one_are_left_out_and_counted(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [frame for seed in (1, 1, 2, 2, 1) for frame in [photo(seed, 256, 192)] * 10])
    _, pictures, ending = read(path, every_s=0.5, min_distance=32)
    assert [one.time_s for one in pictures] == [0.0, 2.0, 4.0]
    assert ending.facts["equal_frames"] == 7
    assert len(read(path, every_s=0.5)[1]) == 10


def test_black_frames_are_near_to_each_other_and_not_to_grey_ones(tmp_path: Path) -> None:
    black, dark, grey = (look_of(np.full((48, 64, 3), level, np.uint8)) for level in (0, 2, 60))
    assert [are_near(black, dark, 32), are_near(black, grey, 32), are_near(black, black, 0)] == [True, False, False]
