"""Makes the rows of a video from the decoder's messages: frames with times, the texts between them, a caption, facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlmdata.fields import renamed
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import reject, text_of
from vlmdata.readers.source_images import inline
from vlmdata.readers.strings import clean
from vlmdata.video.decoder import Decoder, Place
from vlmdata.video.settings import VideoError
from vlmdata.video.subtitles import Said

OURS = ("video", "subtitles")  # fields of a sample's JSON that this source writes


@dataclass(frozen=True)
class About:
    """What is known of a video besides its bytes. `beside` holds the subtitles of a file, whose times begin with the file.

    `facts` are fields for the sample's JSON. A row that is dropped has `place` and the fields `id` and `url`.
    """

    id: str
    place: str
    url: str | None = None
    captions: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    beside: Sequence[Said] = ()


def video_rows(decoder: Decoder, where: Place, about: About, clip_s: float | None) -> Iterator[dict[str, Any]]:
    """Yield the row of a video, or a row for each clip of `clip_s` seconds that has a frame.

    A video that cannot be used gives one dropped row. If an error comes after the first clips, their rows stay, and a dropped
    row follows.
    """
    clip = _Clip(0)
    texts: list[Said] = []
    facts: dict[str, Any] = {}
    try:
        for head, data in decoder.decode(where):
            if head.get("done"):
                yield clip.row(about, texts, {**facts, **head["facts"]}, clip_s)
            elif "texts" in head:
                facts = head["facts"]
                texts = _shifted(about.beside, head["offset_s"]) or [Said(*said) for said in head["texts"]]
            else:
                number = head["clip"]
                if number != clip.number and clip.frames:
                    shown, texts = _until(texts, number * (clip_s or 0))
                    yield clip.row(about, shown, facts, clip_s)
                    clip = _Clip(number)
                clip.number = number
                clip.frames.append((head["time_s"], data))
    except VideoError as error:
        yield dropped(about, error)


def dropped(about: About, error: VideoError) -> dict[str, Any]:
    """Return the row of a video that cannot be used."""
    row: dict[str, Any] = {"id": about.id, "url": about.url, "images": [], "texts": [], "extra": _extra(about, {})}
    verdict = {"value": error.value, "threshold": error.threshold, "place": about.place, "problem": clean(str(error))}
    return reject({**row, **verdict}, error.reason)


@dataclass
class _Clip:
    """The frames of a row, as (seconds, encoded image)."""

    number: int
    frames: list[tuple[float, bytes]] = field(default_factory=list)

    def row(self, about: About, said: Sequence[Said], facts: Mapping[str, Any], clip_s: float | None) -> dict[str, Any]:
        """Return the row. A text that begins at the time of a frame follows the frame. The caption is last."""
        entries: list[tuple[float, int, Any]] = [(time, 0, data) for time, data in self.frames]
        entries += [(one.start, 1, one) for one in said]
        entries.sort(key=lambda one: one[:2])
        images: list[Any] = [{**inline(one), "time_s": time} if kind == 0 else None for time, kind, one in entries]
        texts: list[Any] = [{"text": one.text} if kind == 1 else None for _, kind, one in entries]
        caption = text_of(about.captions)
        if caption["text"]:
            images.append(None)
            texts.append(caption)
        clip = {} if clip_s is None else {"clip": self.number, "clip_start_s": self.number * clip_s}
        stated: dict[str, Any] = {"video": {**facts, **clip}}
        if said:
            stated["subtitles"] = [[round(one.start, 3), round(one.end, 3)] for one in said]
        part = "" if clip_s is None else f"#{self.number}"
        row = {"id": f"{about.id}{part}", "images": images, "texts": texts, "extra": _extra(about, stated)}
        return {**row, "url": about.url, "place": None if about.url else about.place}


def _until(texts: Sequence[Said], end: float) -> tuple[list[Said], list[Said]]:
    """Divide texts into those that begin before `end` and the others."""
    return [one for one in texts if one.start < end], [one for one in texts if one.start >= end]


def _shifted(said: Sequence[Said], offset_s: float) -> list[Said]:
    """Return texts whose times began with the file, with times since the first frame."""
    return [Said(one.start - offset_s, one.end - offset_s, one.text) for one in said]


def _extra(about: About, stated: Mapping[str, Any]) -> str:
    return clean(json_object({**renamed(dict(about.facts), list(OURS)), **stated}))
