"""PaliGemma: `<loc0256><loc0128><loc0768><loc0512> dog ; <loc0000><loc0000><loc0512><loc0512> cat`.

Four tokens y0, x0, y1, x1 stand before a name: 1024ths of the picture's height and width, rounded, at most 1023. The picture is
resized to a square. Bin: 1/1024. Every box has its own name.

Published: the questions `detect dog ; cat` and `caption <loc...>` for the content of a box, and the answer above. A question
for the place of one object is a `detect`. Nothing is published for objects that are not in the picture: the answer keeps its
words. Nothing is published for a text with boxes: its words come first, then ` ; ` and the boxes with the phrases.

A name has no `<`, `>` or line breaks, and `,` in place of `;`.

Source: Beyer et al. 2024 (PaliGemma); big_vision/configs/proj/paligemma of google-research/big_vision (Apache-2.0), whose
decoding divides by 1024.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Found, Part, Piece, ReadText, boxes_of, scan, without_tags
from vlmdata.grounding.scales import Numbers, Steps
from vlmdata.grounding.spans import Task

BETWEEN = Piece(" ; ", False)
NAMED = re.compile(r"(?: ?; ?)?+((?:<loc\d{4}>){4}+)([^<;\n]*+)")


class PaliGemma(Form):
    scale: ClassVar = Steps(1024, 1023)
    control: ClassVar = re.compile(r"<loc\d{4}>")

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        pieces: list[Piece] = []
        name = _name(phrase)
        for x0, y0, x1, y1 in boxes:
            tokens = "".join(f"<loc{number:04d}>" for number in (y0, x0, y1, x1))
            pieces += [*([BETWEEN] if pieces else []), Piece(tokens, True), Piece(f" {name}" if name else "", False)]
        return pieces

    def text(self, parts: Sequence[Part], end: str) -> list[Piece]:
        words = "".join(part.before + part.phrase for part in parts) + end
        boxes = [part for part in parts if part.boxes]
        return [Piece(words, False), *([BETWEEN, *self.detections(boxes)] if boxes else [])]

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        if task == "describe":
            return [Piece("caption ", False), *self.mention("", [box for part in parts for box in part.boxes])]
        return [Piece(f"detect {' ; '.join(_name(part.phrase) for part in parts)}", False)]

    def detections(self, parts: Sequence[Part]) -> list[Piece]:
        pieces: list[Piece] = []
        for part in parts:
            pieces += [*([BETWEEN] if pieces else []), *self.mention(part.phrase, part.boxes)]
        return pieces

    def read(self, text: str, width: int, height: int) -> ReadText:
        def named(match: re.Match[str]) -> tuple[str, Found]:
            y0, x0, y1, x1 = (int(number) for number in re.findall(r"\d{4}", match[1]))
            return "", Found(match[2].strip(), boxes_of(self.scale, [(x0, y0, x1, y1)], width, height))

        return _by_name(scan(text, NAMED, named, self.control))


def _name(phrase: str) -> str:
    return without_tags(phrase).replace(";", ",")


def _by_name(read: ReadText) -> ReadText:
    """Return the text with neighbours of the same name as one phrase with several boxes."""
    found: list[Found] = []
    for one in read.found:
        if found and found[-1].phrase == one.phrase:
            found[-1] = Found(one.phrase, found[-1].boxes + one.boxes)
        else:
            found.append(one)
    return ReadText(read.text, tuple(found))


FORM = PaliGemma()
