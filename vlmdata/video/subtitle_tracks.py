"""Reads one text track of a video, without decoding pictures or sound."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from vlmdata.extras import required
from vlmdata.video.frame_stream import Budget, packets
from vlmdata.video.settings import VideoError
from vlmdata.video.subtitles import MOST, Said, in_packet, tidy

TEXTS = ("subrip", "srt", "text", "mov_text", "ass", "ssa", "webvtt")  # codecs whose packets are texts
_NO_END_S = 5.0  # a text without a duration


def text_track(container: Any, language: str) -> Any | None:
    """Return the track in `language` ("en" also finds "eng"), or else the default or first track of texts, or None."""
    found = [one for one in container.streams.subtitles if one.codec_context is not None and one.codec_context.name in TEXTS]
    if not found:
        return None
    default = required("av", "source video").stream.Disposition.default

    def rank(stream: Any) -> tuple[bool, bool, int]:
        said = (stream.language or "").lower()
        return not (language and said.startswith(language.lower())), not (stream.disposition & default), stream.index

    return min(found, key=rank)


def said_in(container: Any, stream: Any, start: Fraction, budget: Budget) -> list[Said]:
    """Return the texts of a track, with times since `start`, the time of the first frame. The container is then at its end."""
    return tidy(_packets(container, stream, start, budget))


def _packets(container: Any, stream: Any, start: Fraction, budget: Budget) -> Iterator[Said]:
    av = required("av", "source video")
    name = stream.codec_context.name
    try:
        for number, packet in enumerate(packets(container, stream, budget)):
            if number > MOST:
                return
            if packet.pts is None or not packet.size:
                continue
            begins = float(packet.pts * packet.time_base - start)
            lasts = float(packet.duration * packet.time_base) if packet.duration else _NO_END_S
            yield Said(begins, begins + lasts, in_packet(name, bytes(packet)))
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise VideoError("too_large", "the subtitles need more memory than allowed") from None
