"""Reads a video file: yields the chosen frames, encoded, then the texts of a subtitle track and the facts about the video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

from vlmdata.images.encode import encode
from vlmdata.video.choose import exact, goals, needs_duration, shown_at
from vlmdata.video.containers import opened, video_stream
from vlmdata.video.frame_stream import Budget, FrameStream, Timed, last_time
from vlmdata.video.near_equal import Look, are_near, look_of
from vlmdata.video.picture import Scaler, display_matrix, upright
from vlmdata.video.scenes import scene_frames
from vlmdata.video.settings import FrameSettings
from vlmdata.video.subtitle_tracks import said_in, text_track
from vlmdata.video.subtitles import Said
from vlmdata.video.tone_map import HLG, PQ

EARLY_S = 2.0  # a video that ends so much earlier than its header states is cut
MAX_BYTES = 200_000_000  # encoded frames of a row; 768 JPEGs of 768 pixels have about 80 MB


@dataclass(frozen=True)
class Picture:
    """A chosen frame: seconds since the first frame, the encoded image, and the number of its clip (0 without clips)."""

    time_s: float
    data: bytes
    clip: int = 0


@dataclass(frozen=True)
class Beginning:
    """What is known after the first frame: facts for the sample's JSON, and the texts of the file's subtitle track.

    `offset_s` is the time of the first frame since the start of the file.
    """

    facts: dict[str, Any]
    offset_s: float
    texts: list[Said]


@dataclass(frozen=True)
class Ending:
    """What is known after the last frame: facts for the sample's JSON."""

    facts: dict[str, Any]


def read_video(file: BinaryIO, settings: FrameSettings, budget: Budget | None = None) -> Iterator[Beginning | Picture | Ending]:
    """Yield the Beginning, the chosen frames in the order of time, and the Ending.

    One frame is in memory at a time (16 if scenes are chosen). Raises VideoError if the file cannot be used; a file that is
    damaged after some frames is used up to there.
    """
    budget = budget or Budget(settings.max_cost)
    with opened(file, settings.max_pixels) as container:
        video = video_stream(container, settings.max_pixels)
        stated = duration = _duration(container, video)
        if needs_duration(settings, stated):
            duration = last_time(container, video, budget)
    with opened(file, settings.max_pixels) as container:
        video = video_stream(container, settings.max_pixels)
        frames = FrameStream(container, video, budget)
        start = frames.begin()
        facts = {
            "container": container.format.name.partition(",")[0],
            "codec": video.codec_context.name,
            "width": video.codec_context.width,
            "height": video.codec_context.height,
            "duration_s": None if stated is None else round(float(stated), 3),
        }
        at = file.tell()
        texts = _texts(file, settings, start, budget) if settings.subtitles else []
        file.seek(at)
        yield Beginning(facts, float(start - Fraction(container.start_time or 0, 1_000_000)), texts)
        chosen = _Chosen(settings, video.sample_aspect_ratio)
        yield from chosen.pictures(_frames(frames, settings, duration))
        yield Ending(_facts(frames, chosen, stated))


def _frames(frames: FrameStream, settings: FrameSettings, duration: Fraction | None) -> Iterator[Timed]:
    if settings.scenes != "none":
        return scene_frames(frames, settings.scenes)
    return shown_at(frames, goals(settings, duration))


def _duration(container: Any, video: Any) -> Fraction | None:
    """Return the seconds that the header states, or None if it states none."""
    if video.duration and video.duration > 0:
        return Fraction(video.duration * video.time_base)
    return Fraction(container.duration, 1_000_000) if container.duration and container.duration > 0 else None


def _texts(file: BinaryIO, settings: FrameSettings, start: Fraction, budget: Budget) -> list[Said]:
    """Return the texts of the file's subtitle track, read through a container of its own. The file is elsewhere afterwards."""
    with opened(file, settings.max_pixels) as container:
        track = text_track(container, settings.language)
        return [] if track is None else said_in(container, track, start, budget)


class _Chosen:
    """Turns chosen frames into pictures, leaves out near-equal ones, and counts."""

    def __init__(self, settings: FrameSettings, shape: Fraction | None) -> None:
        self._settings, self._shape, self._scale = settings, shape, Scaler()
        self.equal = 0
        self.is_full = self.is_interlaced = False
        self.transfer = 0
        self.matrix: tuple[int, int, int, int] | None = None
        self._look: Look | None = None
        self._clip, self._in_clip, self._bytes = -1, 0, 0

    def pictures(self, frames: Iterator[Timed]) -> Iterator[Picture]:
        own = self._settings
        for time, frame in frames:
            if not self._has_room(time):
                if own.clip_s is None:
                    return
                continue
            self._note(frame)
            pixels = upright(frame, self._shape, own.size, self._scale)
            look = look_of(pixels) if own.min_distance else None
            if look and self._look and are_near(look, self._look, own.min_distance):
                self.equal += 1
                continue
            self._look = look
            self._in_clip += 1
            data = encode(pixels, own.format, own.quality)
            self._bytes += len(data)
            yield Picture(float(time), data, max(self._clip, 0))

    def _has_room(self, time: Fraction) -> bool:
        """Return whether the row of this time has fewer than `max_frames` frames. Each clip keeps its first frame."""
        if self._settings.clip_s is not None and (clip := math.floor(time / exact(self._settings.clip_s))) != self._clip:
            self._clip, self._in_clip, self._bytes, self._look = clip, 0, 0, None
        has_room = self._in_clip < self._settings.max_frames and self._bytes < MAX_BYTES
        self.is_full |= not has_room
        return has_room

    def _note(self, frame: Any) -> None:
        self.is_interlaced |= bool(frame.interlaced_frame)
        self.transfer = int(frame.color_trc)
        self.matrix = display_matrix(frame)


def _facts(frames: FrameStream, chosen: _Chosen, stated: Fraction | None) -> dict[str, Any]:
    """Return what the sample's JSON says about the decoded frames. What is as usual is left out."""
    end = (frames.last or Fraction(0)) + frames.gap
    ends_early = frames.is_cut or (
        not chosen.is_full and frames.is_at_end and stated is not None and float(stated - end) > EARLY_S
    )
    matrix = None if chosen.matrix in (None, (65536, 0, 0, 65536)) else [e / 65536 for e in chosen.matrix or ()]
    odd = {
        "hdr": {PQ: "pq", HLG: "hlg"}.get(chosen.transfer),
        "display_matrix": matrix,
        "interlaced": chosen.is_interlaced,
        "bad_packets": frames.bad_packets,
        "ends_early": ends_early,
        "more_frames": chosen.is_full,
    }
    counts = {"frames_decoded": frames.frames, "equal_frames": chosen.equal}
    return {**counts, **{name: value for name, value in odd.items() if value}}
