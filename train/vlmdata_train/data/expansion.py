"""Replace the token of each image or video in a text by its pieces: literal text, and one token for each run of features."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vlmdata_train.data.document import Media, Video
from vlmdata_train.model.written import Piece, Place, Run

Span = tuple[int, int]  # (start, end) of a text, in characters
Write = Callable[[Media, Place], list[Piece]]  # returns the pieces of an image or a video


@dataclass(frozen=True)
class Expansion:
    """A text in which each image or video is written with its pieces, and where the images and videos are in it."""

    text: str
    spans: list[Span]  # of each image or video
    runs: list[tuple[Run, ...]]  # of each image; the text has one image token for each run
    ends: list[int]  # of each image, before the expansion
    shifts: list[int]  # how far the text after each image has moved

    def moved(self, spans: Iterable[Span]) -> list[Span]:
        """Return the spans of texts after the expansion, from their spans before it."""
        return [(self._moved(start), self._moved(end)) for start, end in spans]

    def _moved(self, place: int) -> int:
        images = bisect_right(self.ends, place)
        return place + (self.shifts[images - 1] if images else 0)

    @property
    def lead(self) -> int:
        """The end of the images that begin the text."""
        end = 0
        for start, stop in self.spans:
            if start != end:
                break
            end = stop
        return end

    def inserted(self, place: int, text: str) -> Expansion:
        """Return the expansion with `text` inserted at `place`, which must not be inside an image."""
        spans = [(start + len(text), end + len(text)) if start >= place else (start, end) for start, end in self.spans]
        shifts = [shift + (len(text) if span[1] >= place else 0) for span, shift in zip(self.spans, self.shifts, strict=True)]
        return Expansion(self.text[:place] + text + self.text[place:], spans, self.runs, self.ends, shifts)


def has_several(media: Sequence[Media]) -> bool:
    """Return whether there is more than one image. Videos do not count."""
    return sum(not isinstance(item, Video) for item in media) > 1


def marks(tokens: tuple[str, str], placeholder: str | None) -> tuple[str, str]:
    """Return the texts that a chat template writes for an image and for a video, from the image token and the video token."""
    image, video = tokens
    return (placeholder or image, (placeholder or image) if video == image else video)


def expand(
    text: str, tokens: tuple[str, str], media: Sequence[Media], write: Write, *, placeholder: str | None = None
) -> Expansion | None:
    """Return the text with the pieces of each image or video in place of its token.

    `tokens` are the image token and the video token, which may be equal. If the text has a placeholder in place of the image
    token, `placeholder` is this text. Return None if the text does not have one of them for each image and video.
    """
    token = re.compile("|".join(map(re.escape, marks(tokens, placeholder))))
    between, lengths = token.split(text), [len(found) for found in token.findall(text)]
    if len(lengths) != len(media):
        return None
    several = has_several(media)
    spans, runs, ends, shifts = [], [], [], []
    written, at = between[0], len(between[0])
    for number, item in enumerate(media):
        after = between[number + 1]
        pieces = write(item, Place(number, written, after, several))
        start, own = len(written), tokens[isinstance(item, Video)]
        written += "".join(piece if isinstance(piece, str) else own for piece in pieces)
        at += lengths[number]
        spans.append((start, len(written)))
        runs.append(tuple(piece for piece in pieces if isinstance(piece, Run)))
        ends.append(at)
        shifts.append(len(written) - at)
        written, at = written + after, at + len(after)
    return Expansion(written, spans, runs, ends, shifts)
