"""Frames are stored upright, with square pixels and in sRGB."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.video.made_videos import HEIGHT, PQ_COLOURS, WIDTH, pixels_of, read, with_matrix, write_video
from vlmdata.video.tone_map import HLG, PQ, tone_mapped

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 230, 230)


def corners() -> np.ndarray:
    """Return a frame with red top left, green top right, blue bottom left and white bottom right."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[: HEIGHT // 2, : WIDTH // 2], frame[: HEIGHT // 2, WIDTH // 2 :] = RED, GREEN
    frame[HEIGHT // 2 :, : WIDTH // 2], frame[HEIGHT // 2 :, WIDTH // 2 :] = BLUE, WHITE
    return frame


def named(pixels: np.ndarray) -> str:
    """Return the first letters of the colours top left, top right, bottom left, bottom right."""
    height, width = pixels.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    known = {"r": RED, "g": GREEN, "b": BLUE, "w": WHITE}
    found = [pixels[place].astype(int) for place in places]
    return "".join(min(known, key=lambda name: np.abs(one - known[name]).sum()) for one in found)


@pytest.mark.parametrize(
    ("matrix", "size", "seen"),
    [
        ((1, 0, 0, 1), (WIDTH, HEIGHT), "rgbw"),
        ((0, 1, -1, 0), (HEIGHT, WIDTH), "brwg"),  # a quarter turn clockwise, as phones held upright write it
        ((-1, 0, 0, -1), (WIDTH, HEIGHT), "wbgr"),
        ((0, -1, 1, 0), (HEIGHT, WIDTH), "gwrb"),
        ((-1, 0, 0, 1), (WIDTH, HEIGHT), "grwb"),  # mirrored
    ],
)
def test_the_display_matrix_is_applied(matrix: tuple[int, ...], size: tuple[int, int], seen: str, tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [corners()] * 3)
    path.write_bytes(with_matrix(path.read_bytes(), matrix))
    _, pictures, ending = read(path)
    pixels = pixels_of(pictures[0])
    assert (pixels.shape[1::-1], named(pixels)) == (size, seen)
    assert ending.facts.get("display_matrix") == (None if matrix == (1, 0, 0, 1) else list(matrix))


@pytest.mark.parametrize(("shape", "size"), [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96)), (Fraction(3, 2), (96, 48))])
def test_pixels_become_square(shape: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mkv", [corners()] * 3, shape=shape)
    assert pixels_of(read(path)[1][0]).shape[1::-1] == size


def test_the_longer_side_is_limited_and_never_enlarged(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [corners()] * 3)
    assert pixels_of(read(path, size=32)[1][0]).shape == (24, 32, 3)
    assert pixels_of(read(path, size=200)[1][0]).shape == (48, 64, 3)


def test_the_colours_of_bt_709_and_of_bt_601_are_those_of_the_source(tmp_path: Path) -> None:
    for matrix in (1, 5):
        write_video(path := tmp_path / f"{matrix}.mp4", [corners()] * 3, colours={"colorspace": matrix})
        assert named(pixels_of(read(path)[1][0])) == "rgbw"


def test_a_frame_in_pq_is_as_bright_as_its_reference_white_says(tmp_path: Path) -> None:
    """Light of 203 cd/m2 is the white of a book page: bright, but below the brightest. 0.1 cd/m2 is black."""
    levels = [0.5806, 0.0623, 0.7518, 1.0]  # 203, 0.1, 1000 and 10000 cd/m2 in PQ (ITU-R BT.2408, table 1, and ST 2084)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    for number, level in enumerate(levels):
        frame[:, number * 16 : number * 16 + 16] = round(level * 65535)
    path = tmp_path / "a.mkv"
    write_video(
        path, [frame] * 3, codec="libx265", pixels="yuv420p10le", colours=PQ_COLOURS, options={"x265-params": "log-level=0"}
    )
    _, pictures, ending = read(path)
    shown = [int(pixels_of(pictures[0])[24, number * 16 + 8].mean()) for number in range(4)]
    assert ending.facts["hdr"] == "pq"
    assert 220 <= shown[0] <= 242
    assert shown[1] <= 8
    assert shown[2:] == [pytest.approx(255, abs=3)] * 2


@pytest.mark.parametrize(("transfer", "white"), [(PQ, 0.5806), (HLG, 0.75)])
def test_tone_mapping_is_monotonic_and_keeps_grey_grey(transfer: int, white: float) -> None:
    steps = np.linspace(0, 65535, 512).astype(np.uint16)
    grey = np.repeat(steps[None, :, None], 3, axis=2)
    mapped = tone_mapped(grey, transfer)[0].astype(int)
    assert (np.diff(mapped, axis=0) >= 0).all()
    assert np.ptp(mapped, axis=1).max() <= 1
    assert mapped[round(white * 511)].mean() == pytest.approx(231, abs=8)
    assert mapped[-1].tolist() == [255, 255, 255]


def test_frames_that_change_their_size_midway_are_read(tmp_path: Path) -> None:
    """Two MPEG-TS streams in one file, as broadcasts have them."""
    for number, (height, width) in enumerate(((48, 64), (96, 128))):
        times = [10 * number + n for n in range(10)]
        write_video(tmp_path / f"{number}.ts", [np.full((height, width, 3), 99, np.uint8)] * 10, times=times)
    data = (tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes()
    (path := tmp_path / "a.ts").write_bytes(data)
    assert [pixels_of(one).shape for one in read(path, every_s=0.5)[1]] == [(48, 64, 3)] * 2 + [(96, 128, 3)] * 2
    with pytest.raises(ValueError, match="more than the limit of 100"):
        read(path, max_pixels=100)
