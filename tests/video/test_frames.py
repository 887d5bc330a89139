"""Frames are chosen by their times, whatever the container, the order of decoding and the distances of the times."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.video.made_videos import grey, read, times_and_numbers, write_video
from vlmdata.video.frame_stream import Budget
from vlmdata.video.read_video import read_video
from vlmdata.video.settings import FrameSettings, VideoError

CODECS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "libx264", "mov": "libx264"}
FINE = {"qmin": "1", "qmax": "2"}  # for mpeg4, whose usual quality changes the brightness


@pytest.mark.parametrize("ending", CODECS)
def test_frames_are_taken_at_every_multiple_of_the_time(ending: str, tmp_path: Path) -> None:
    write_video(
        path := tmp_path / f"a.{ending}",
        [grey(n) for n in range(30)],
        codec=CODECS[ending],
        options=FINE if ending == "avi" else None,
    )
    assert times_and_numbers(path, every_s=0.5) == [(0.0, 0), (0.5, 5), (1.0, 10), (1.5, 15), (2.0, 20), (2.5, 25)]


@pytest.mark.parametrize("ending", CODECS)
def test_a_number_of_frames_is_spread_over_the_time(ending: str, tmp_path: Path) -> None:
    write_video(
        path := tmp_path / f"a.{ending}",
        [grey(n) for n in range(40)],
        codec=CODECS[ending],
        options=FINE if ending == "avi" else None,
    )
    assert times_and_numbers(path, count=4) == [(0.5, 5), (1.5, 15), (2.5, 25), (3.5, 35)]


def test_the_shown_frame_is_taken_if_the_distances_of_frames_vary(tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 4, 25, 26, 48, 49]  # in tenths of a second
    write_video(path := tmp_path / "a.mp4", [grey(n) for n in range(len(times))], times=times)
    # at 1 s and 2 s the frame of 0.4 s is shown, at 3 s and 4 s that of 2.6 s
    assert times_and_numbers(path, every_s=1) == [(0.0, 0), (0.4, 4), (2.6, 6)]
    assert times_and_numbers(path, count=2) == [(0.4, 4), (2.6, 6)]


@pytest.mark.parametrize("start", [-7, 13])
def test_times_are_relative_to_the_first_frame(start: int, tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mkv", [grey(n) for n in range(20)], times=[start + n for n in range(20)])
    assert times_and_numbers(path, every_s=0.5) == [(0.0, 0), (0.5, 5), (1.0, 10), (1.5, 15)]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_jumps_to_keyframes_find_the_frames_that_decoding_through_finds(ending: str, tmp_path: Path) -> None:
    options = {"g": "10", "bf": "3", "x264-params": "scenecut=0"}  # a keyframe each second, and frames out of order
    write_video(path := tmp_path / f"a.{ending}", [grey(n) for n in range(300)], options=options)
    _, sparse, ending_of_sparse = read(path, every_s=5)
    assert times_and_numbers(path, every_s=5) == [(5.0 * n, 0) for n in range(6)]
    every = {one.time_s: one.data for one in read(path, every_s=0.1)[1]}
    assert [one.data == every[one.time_s] for one in sparse] == [True] * 6
    assert ending_of_sparse.facts["frames_decoded"] < 200


def test_a_video_with_one_keyframe_is_decoded_about_once(tmp_path: Path) -> None:
    options = {"g": "9999", "x264-params": "keyint=infinite:scenecut=0"}
    write_video(path := tmp_path / "a.mp4", [grey(n) for n in range(300)], rate=2, options=options)
    for settings in (FrameSettings(every_s=40, min_distance=0), FrameSettings(count=3, min_distance=0)):
        with open(path, "rb") as file:
            assert len(list(read_video(file, settings, budget := Budget(10_000)))) == 2 + (4 if settings.count is None else 3)
        assert budget.spent < 2.5 * 300 * 0.053  # 0.053: a frame


def test_a_long_video_gets_frames_farther_apart_and_not_only_its_beginning(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [grey(n) for n in range(40)])
    assert times_and_numbers(path, every_s=0.1, max_frames=4) == [(0.0, 0), (1.0, 10), (2.0, 20), (3.0, 30)]


def test_each_clip_has_its_own_greatest_number_of_frames(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [grey(n) for n in range(40)])
    assert times_and_numbers(path, every_s=0.1, max_frames=1, clip_s=2.0) == [(0.0, 0), (2.0, 20)]
    assert times_and_numbers(path, count=1, clip_s=2.0) == [(1.0, 10), (3.0, 30)]


def test_a_stream_without_a_duration_is_read_to_its_end(tmp_path: Path) -> None:
    made = io.BytesIO()
    made.seekable = lambda: False  # type: ignore[method-assign]  # the writer cannot return to fill in the duration
    write_video(made, [grey(n) for n in range(30)], codec="libvpx", format="webm", options={"g": "5"})
    (path := tmp_path / "a.webm").write_bytes(made.getvalue())
    beginning, _, _ = read(path, every_s=1)
    assert times_and_numbers(path, count=3) == [(0.5, 5), (1.5, 15), (2.5, 25)]
    assert times_and_numbers(path, every_s=1) == [(0.0, 0), (1.0, 10), (2.0, 20)]
    assert beginning.facts["duration_s"] is None


def test_a_video_that_costs_more_than_the_limit_is_given_up(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [grey(n) for n in range(40)])
    with pytest.raises(VideoError) as raised:
        read(path, max_cost=1)
    assert (raised.value.reason, raised.value.threshold) == ("too_costly", 1)
