"""Words and lines of a page's text layer, with boxes.

The order of the characters within a line is PDFium's, which also holds for scripts that are written from right to left.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from vlmdata.extras import required
from vlmdata.pdf.geometry import Box, area, common, has_center_in, union
from vlmdata.pdf.rendering import USER, Page

MAX_CHARACTERS = 200_000  # of a page; a page of a newspaper has about 30,000
WIDE_GAP = 1.5  # of a line's height: words that are farther apart belong to two columns
Turn = Literal["upright", "sideways", "over"]
MOST_TURN = 0.7  # sine of the angle between letters and the upright, about 45 degrees
_BREAKS = "\r\n"
_SOFT_HYPHENS = "\ufffe\u0002\u00ad"  # PDFium marks the hyphen of a divided word with U+FFFE or U+0002


class TooMuchText(ValueError):
    """A page with more than MAX_CHARACTERS characters."""


@dataclass
class Word:
    """A word, and its box on the displayed page: from the ascent to the descent of its font, and as wide as its advance.

    `turn` says how its letters stand on the displayed page.
    """

    text: str
    box: Box
    turn: Turn = "upright"


@dataclass
class Line:
    """Words that stand beside each other. `is_divided`: the last word ends in the hyphen of a divided word."""

    words: list[Word]
    is_divided: bool = False
    box: Box = field(init=False)

    def __post_init__(self) -> None:
        self.box = union(word.box for word in self.words)

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def is_turned(self) -> bool:
        """Whether the line is not upright, such as a note in the margin that runs up."""
        return self.words[0].turn != "upright"


def lines_of(page: Page) -> list[Line]:
    """Return the lines of a page. Words outside the displayed part are left out. Raises TooMuchText."""
    text = page.raw.get_textpage()
    try:
        if text.count_chars() > MAX_CHARACTERS:
            raise TooMuchText(f"the page has {text.count_chars():,} characters, more than {MAX_CHARACTERS:,}")
        return [line for raw in _raw_lines(page, text) for line in _divided(raw, page)]
    finally:
        text.close()


def _raw_lines(page: Page, text: object) -> Iterator[list[Word]]:
    """Yield the words between line breaks of PDFium."""
    words: list[Word] = []
    letters: list[str] = []
    boxes: list[Box] = []
    angle = required("pypdfium2.raw", USER).FPDFText_GetCharAngle
    upright = math.radians(page.raw.get_rotation())

    def end_word() -> None:
        plain = _plain("".join(letters))
        if plain and boxes:
            words.append(Word(plain, union(boxes), turn))
        letters.clear()
        boxes.clear()

    turn: Turn = "upright"
    for number, (letter, box) in enumerate(_letters(page, text)):
        if letter.isspace() or box is None:
            end_word()
            if letter in _BREAKS and words:
                yield words
                words = []
            continue
        if boxes and not _follows(boxes[-1], box, turn):  # PDFium gives no break after the hyphen of a divided word
            end_word()
        if not boxes:
            turn = _turn(angle(text, number) - upright)
        letters.append(letter)
        boxes.append(box)
    end_word()
    if words:
        yield words


def _turn(angle: float) -> Turn:
    return "sideways" if abs(math.sin(angle)) > MOST_TURN else "upright" if math.cos(angle) > 0 else "over"


def _letters(page: Page, text: object) -> Iterator[tuple[str, Box | None]]:
    """Yield each character with its box, which is None for white space. A soft hyphen becomes U+00AD."""
    pdfium = required("pypdfium2.raw", USER)
    rect = pdfium.FS_RECTF()
    for number in range(pdfium.FPDFText_CountChars(text)):
        code = pdfium.FPDFText_GetUnicode(text, number)
        letter = chr(code) if code <= 0x10FFFF else "\ufffd"
        if letter in _SOFT_HYPHENS:
            letter = "\u00ad"
        if letter.isspace() or not pdfium.FPDFText_GetLooseCharBox(text, number, rect):
            yield letter if letter in _BREAKS else " ", None
            continue
        yield letter, page.displayed(rect.left, rect.bottom, rect.right, rect.top)


def _plain(text: str) -> str:
    """Return a word without control characters and with Latin ligatures as letters."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = (letter for letter in text if letter == "\u00ad" or unicodedata.category(letter) not in ("Cc", "Cn", "Co", "Cs"))
    return "".join(unicodedata.normalize("NFKC", one) if "\ufb00" <= one <= "\ufb06" else one for one in kept)


def _divided(words: list[Word], page: Page) -> Iterator[Line]:
    """Yield a raw line in the parts that stand beside each other, without words outside the page."""
    part: list[Word] = []
    for word in words:
        if not has_center_in(word.box, page.box):
            continue
        word.box = common(word.box, page.box)
        if not area(word.box):
            continue
        if part and (part[-1].turn != word.turn or not _follows(part[-1].box, word.box, word.turn)):
            yield _line(part)
            part = []
        part.append(word)
    if part:
        yield _line(part)


def _line(words: list[Word]) -> Line:
    last = words[-1]
    is_divided = last.text.endswith("\u00ad")
    for word in words:
        word.text = word.text.replace("\u00ad", "-" if word is last else "")
    return Line([word for word in words if word.text], is_divided)


def _follows(before: Box, box: Box, turn: Turn) -> bool:
    """Return whether two letters or words belong to one line: beside each other, or above each other if they run sideways."""
    if turn == "sideways":
        before, box = (before[1], before[0], before[3], before[2]), (box[1], box[0], box[3], box[2])
    height = max(before[3] - before[1], box[3] - box[1])
    across = max(box[0] - before[2], before[0] - box[2])
    overlap = min(before[3], box[3]) - max(before[1], box[1])
    return overlap > 0.3 * min(before[3] - before[1], box[3] - box[1]) and across < WIDE_GAP * height
