"""Measure what frames of videos cost: `python -m bench.video FILE ...`, or `python -m bench.video --hours 1`.

For each file: the CPU seconds of plain PyAV (decode every frame with one thread, and keep nothing), and of the source's code at
one frame a second, with 8 frames, and by scene. With `--hours`, a video of this length with a frame each second is made and
read in clips of a minute, and the peak memory of the decoding process and of this process is printed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlmdata.sources.video import Video
from vlmdata.video.decoder import Decoder, Place
from vlmdata.video.read_video import Beginning, Picture, read_video
from vlmdata.video.settings import FrameSettings

WAYS: dict[str, dict[str, Any]] = {"1 fps": {}, "8 frames": {"count": 8}, "scenes": {"scenes": "middle"}}


def plain(path: Path) -> float:
    """Return the CPU seconds that PyAV takes to decode every frame."""
    begin = time.process_time()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for _ in container.decode(container.streams.video[0]):
            pass
    return time.process_time() - begin


def ours(path: Path, **settings: Any) -> tuple[float, int, Beginning]:
    """Return the CPU seconds that the frames of a video take, their number, and the facts about the video."""
    begin = time.process_time()
    with open(path, "rb") as file:
        found = list(read_video(file, FrameSettings(**settings)))
    assert isinstance(found[0], Beginning)
    return time.process_time() - begin, sum(isinstance(one, Picture) for one in found), found[0]


def make_long(path: Path, hours: float) -> None:
    """Write a video of 160 x 120 pixels with a frame each second, all of them different."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 160, 120, "yuv420p", Fraction(1, 1)
        for number in range(round(hours * 3600)):
            small = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(small.repeat(20, 0).repeat(20, 1), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def peak_kb(process: int | str) -> int:
    """Return the peak memory of a running process in kB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure_long(hours: float) -> None:
    """Print what a long video takes: seconds, rows, and the peak memory of both processes."""
    with tempfile.TemporaryDirectory() as folder:
        make_long(path := Path(folder) / "long.mkv", hours)
        with Decoder(FrameSettings(clip_s=60)) as decoder:
            peaks = [peak_kb(decoder.process_id) for _ in decoder.decode(Place(str(path)))]
        print(f"decoder: {peaks[600] / 1e3:.0f} MB after 10 minutes, {peaks[-1] / 1e3:.0f} MB after {hours:g} hours")
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        source = Video(path=str(path), clip_s=60)
        rows = sum(len(table) for piece in source.pieces() for table in source.read(piece))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"source: {rows} rows, {time.monotonic() - begin:.1f} s, {before / 1e3:.0f} -> {after / 1e3:.0f} MB")


def main() -> None:
    """Print one line for each file and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--hours", type=float)
    chosen = parser.parse_args()
    for path in chosen.files:
        floor = plain(path)
        for way, settings in WAYS.items():
            seconds, frames, begin = ours(path, **settings)
            minutes = (begin.facts["duration_s"] or 0) / 60
            size = f"{begin.facts['codec']} {begin.facts['width']} x {begin.facts['height']}"
            per_minute = f"{seconds / minutes:.2f} CPU s a minute, plain PyAV {floor / minutes:.2f}" if minutes else ""
            print(f"{path.name} {size} {way}: {frames} frames, {per_minute}")
    if chosen.hours:
        measure_long(chosen.hours)


if __name__ == "__main__":
    main()
