"""Find the videos in a document, and choose the frames that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vlmdata_train.data.document import Document, Turn, Video

Entry = tuple[Any, str, Turn | None, float | None]  # a text or picture, its role, its properties, and the time of a frame


def with_videos(entries: Sequence[Entry]) -> list[tuple[Any, str, Turn | None]]:
    """Return the positions of a document, with the frames of each video joined to one position.

    Two or more neighbouring pictures with increasing times and one role are a video. A picture whose properties say that a new
    message begins is not joined to the picture before it.
    """
    joined: list[tuple[list[Any], str, Turn | None, list[float]]] = []
    for item, role, turn, time in entries:
        last = joined[-1] if joined else None
        if time is not None and turn is None and last and last[3] and last[1] == role and time > last[3][-1]:
            last[0].append(item)
            last[3].append(time)
        else:
            joined.append(([item], role, turn, [] if time is None else [time]))
    return [
        (items[0] if len(items) == 1 else Video(tuple(items), tuple(times)), role, turn) for items, role, turn, times in joined
    ]


def with_chosen_frames(document: Document, part: Any) -> Document:
    """Return a document whose videos have only the frames that the model's part `video` chooses.

    Without a part (None), each frame becomes a picture.
    """
    if not any(isinstance(position, Video) for position in document.positions):
        return document
    roles, turns = document.roles or [""] * len(document.positions), document.turns or [None] * len(document.positions)
    entries: list[tuple[Any, str, Turn | None]] = []
    for position, role, turn in zip(document.positions, roles, turns, strict=True):
        if not isinstance(position, Video):
            entries.append((position, role, turn))
        elif part is None:
            entries += [(frame, role, turn if number == 0 else None) for number, frame in enumerate(position.frames)]
        else:
            entries.append((_chosen(position, part), role, turn))
    positions, all_roles, all_turns = (list(column) for column in zip(*entries, strict=True))
    return replace(
        document, positions=positions, roles=None if document.roles is None else all_roles,
        turns=None if document.turns is None else all_turns,
    )  # fmt: skip


def _chosen(video: Video, part: Any) -> Video:
    numbers: list[int] = part.choose(video.times)
    return Video(tuple(video.frames[n] for n in numbers), tuple(video.times[n] for n in numbers))
