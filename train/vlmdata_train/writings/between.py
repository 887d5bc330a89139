"""A token before and a token after each image or frame, such as `<img>` and `</img>` in InternVL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.video_text import check_text, video_text
from vlmdata_train.model.written import Piece, Place, Run, run_of, run_of_video
from vlmdata_train.writings import Writing

_BEFORE_WORD = re.compile(r"[^\s<]")


@dataclass(frozen=True, kw_only=True)
class Between(Writing):
    """Image tokens between two literal tokens.

    A literal token is not written if the text already has this token at its place. So a chat template may write the tokens too,
    and two images with the same token before and after them share the token between them, as in Idefics 1 and 2. White space
    around a literal token is text, as in Gemma 3's `"\\n\\n<start_of_image>"` and Kosmos-2's `"</image> "`.

    Frames of a video: InternVL has `frame: "Frame{number}: ", frame_end: "\\n"`, and Qwen3-VL `frame: "<{seconds} seconds>"`.
    """

    start: str
    end: str
    around: Literal["image", "tile"] = "image"  # `tile`: around each tile; Idefics2 with image splitting
    blank: bool = False  # a blank before a text that follows and begins with neither white space nor `<`, as in Idefics2
    frame: str | None = None  # text before each frame of a video (see `model/video_text.py`); None: a video is like an image
    frame_end: str = ""  # text between the frames

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self.frame, "frame")

    def tokens(self) -> list[str]:
        """Return the two literal tokens."""
        return list(dict.fromkeys((self.start.strip(), self.end.strip())))

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return the runs with the literal tokens around them."""
        return self._between([run_of([region]) for region in regions] if self.around == "tile" else [run_of(regions)], place)

    def write_video(self, regions: Sequence[Region], seconds: Sequence[float], place: Place) -> list[Piece]:
        """Return the run of the video between the two tokens, or each frame between them, after the frame's text."""
        if self.frame is None:
            return self._between([run_of_video(regions, seconds)], place)
        pieces: list[Piece] = []
        for number, region in enumerate(regions):
            pieces += [self.frame_end] if number > 0 else []
            pieces += [video_text(self.frame, seconds, number), self.start, run_of([region]), self.end]
        return pieces

    def _between(self, runs: Sequence[Run], place: Place) -> list[Piece]:
        """Return the runs with the literal tokens around each of them, except tokens that the text already has."""
        pieces: list[Piece] = [] if place.before.endswith(self.start) else [self.start]
        for number, run in enumerate(runs):
            if number > 0 and self.start != self.end:
                pieces.append(self.start)
            pieces += [run, self.end]
        if place.after.startswith(self.end):
            return pieces[:-1]
        return [*pieces, " "] if self.blank and _BEFORE_WORD.match(place.after) else pieces
