"""Small videos for tests, made with PyAV. The brightness of a frame tells its number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vlmdata.video.read_video import Beginning, Ending, Picture, read_video
from vlmdata.video.settings import FrameSettings

WIDTH, HEIGHT = 64, 48
PQ_COLOURS = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}


def grey(number: int) -> np.ndarray:
    """Return the frame of a number: (48, 64, 3) of one brightness, which `number_of` reads from the decoded picture."""
    return np.full((HEIGHT, WIDTH, 3), 20 + 4 * (number % 50), np.uint8)


def number_of(picture: Picture) -> int:
    return round((pixels_of(picture).mean() - 20) / 4)


def pixels_of(picture: Picture) -> np.ndarray:
    """Return the pixels of a stored frame, (H, W, 3) RGB."""
    found = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def photo(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a picture with detail, (height, width, 3), which is the same for the same seed."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_video(
    path: Path | io.BytesIO,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    rate: int = 10,
    codec: str = "libx264",
    format: str | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    colours: dict[str, int] | None = None,
    shape: Fraction | None = None,
) -> None:
    """Write a video. `times` holds the time of each frame in units of 1 / `rate` seconds. Default: 0, 1, 2 ..."""
    height, width = frames[0].shape[:2]
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio = shape
        for name, value in (colours or {}).items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb48le" if frame.dtype == np.uint16 else "rgb24")
            picture.pts, picture.time_base = number if times is None else times[number], Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_sound(path: Path, *, cover: bool = False) -> None:
    """Write a second of silence. With `cover`, the file also has a cover picture, which FFmpeg shows as a stream of video."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000, layout="mono")
        if cover:
            picture: Any = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(photo(1), format="rgb24")))
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, number * 1000, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def with_track(path: Path, codec: str, texts: list[tuple[float, float, str]]) -> None:
    """Write a video of two seconds with a track of texts."""
    header = b"[Script Info]\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\nFormat: Layer, Text\n"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = container.add_stream(codec)
        track.codec_context.subtitle_header = header
        track.time_base = Fraction(1, 1000)
        for number in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey(number), format="rgb24")))
        container.mux(video.encode(None))
        for begin, end, text in texts:
            data = text.encode()
            packet = av.Packet(len(data).to_bytes(2, "big") + data if codec == "mov_text" else data)
            packet.stream, packet.time_base = track, Fraction(1, 1000)
            packet.pts = packet.dts = round(begin * 1000)
            packet.duration = round((end - begin) * 1000)
            container.mux(packet)


def with_matrix(data: bytes, matrix: Sequence[int]) -> bytes:
    """Return an MP4 whose track header has the display matrix a, b, c, d in whole units, as a phone writes it."""
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, id, duration, layer, volume
    a, b, c, d = (value * 65536 for value in matrix)
    entries = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    return data[:at] + entries + data[at + 36 :]


def read(path: Path, **settings: Any) -> tuple[Beginning, list[Picture], Ending]:
    """Read a video in this process. Every frame is kept, unless `min_distance` is given."""
    with open(path, "rb") as file:
        beginning, *pictures, ending = read_video(file, FrameSettings(**{"min_distance": 0, **settings}))
    assert isinstance(beginning, Beginning)
    assert isinstance(ending, Ending)
    return beginning, [one for one in pictures if isinstance(one, Picture)], ending


def times_and_numbers(path: Path, **settings: Any) -> list[tuple[float, int]]:
    """Return (time in seconds, number) of each chosen frame."""
    return [(round(one.time_s, 3), number_of(one)) for one in read(path, **settings)[1]]
