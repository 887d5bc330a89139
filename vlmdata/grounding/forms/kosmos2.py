"""Kosmos-2: `<grounding> An image of<phrase> a dog</phrase><object><patch_index_0044><patch_index_0863></object>`.

Several boxes of a phrase are separated by `</delimiter_of_multi_objects/>`. The picture has 32 x 32 cells, and the picture is
resized to a square. Bin: a cell, 1/32 of a side.

Published: the text of a mention, the place of a phrase (question `<grounding><phrase> a dog</phrase>`, answer only
`<object>...</object>`) and a description (question `<grounding><phrase> It</phrase><object>...</object> is`). Nothing is
published for a list of objects: it is written as mentions.

A phrase has no `<` or `>`, and no line breaks: they become spaces.

Source: processing_kosmos2.py and the model's documentation in transformers 5.24 (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Found, Part, Piece, ReadText, boxes_of, scan, without_tags
from vlmdata.grounding.scales import Cells, Numbers
from vlmdata.grounding.spans import Task

GROUNDING = "<grounding>"
DELIMITER = "</delimiter_of_multi_objects/>"
PAIR = r"<patch_index_\d{4}> ?<patch_index_\d{4}>"
ENTITY = re.compile(rf"(?:<phrase>([^<]++)</phrase>)?+<object> ?({PAIR}(?: ?{DELIMITER} ?{PAIR})*+) ?</object>")


class Kosmos2(Form):
    scale: ClassVar = Cells(32)
    control: ClassVar = re.compile(rf"</?(?:grounding|phrase|object)>|{DELIMITER}|<patch_index_\d{{4}}>")

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        places = DELIMITER.join("".join(f"<patch_index_{number:04d}>" for number in pair) for pair in boxes)
        return [*_tagged(phrase), Piece(f"<object>{places}</object>", True)]

    def text(self, parts: Sequence[Part], end: str) -> list[Piece]:
        """Return a text with boxes. The space before a phrase stands inside its tag, as in the model's documentation."""
        pieces: list[Piece] = []
        for part in parts:
            is_moved = part.before[-1:] == " " or not (part.before or pieces)
            if part.boxes and part.phrase and is_moved:
                pieces += [Piece(part.before[:-1], False), *self.mention(f" {part.phrase}", part.boxes)]
            else:
                own = self.mention(part.phrase, part.boxes) if part.boxes else [Piece(part.phrase, False)]
                pieces += [Piece(part.before, False), *own]
        pieces.append(Piece(end, False))
        if not any(part.boxes for part in parts):
            return pieces
        starts_with_tag = next(piece for piece in pieces if piece.text).is_markup
        return [Piece(GROUNDING, True), Piece("" if starts_with_tag else " ", False), *pieces]

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        start = Piece(GROUNDING, True)
        if task == "refer":
            return [start, *(piece for part in parts for piece in _tagged(f" {part.phrase}"))]
        if task == "describe":
            boxes = [box for part in parts for box in part.boxes]
            return [start, *self.mention(" It", boxes), Piece(" is", False)]
        return super().question(task, parts, end)

    def detections(self, parts: Sequence[Part]) -> list[Piece]:
        return self.text([Part(", " if at else "", part.phrase, part.boxes) for at, part in enumerate(parts)], "")

    def places(self, parts: Sequence[Part]) -> list[Piece]:
        return self.mention("", [box for part in parts for box in part.boxes])

    def read(self, text: str, width: int, height: int) -> ReadText:
        def entity(match: re.Match[str]) -> tuple[str, Found]:
            pairs = [re.findall(r"\d{4}", pair) for pair in match[2].split(DELIMITER)]
            boxes = boxes_of(self.scale, [[int(number) for number in pair] for pair in pairs], width, height)
            return match[1] or "", Found((match[1] or "").strip(), boxes)

        return scan(text, ENTITY, entity, self.control)


def _tagged(phrase: str) -> list[Piece]:
    """Return a phrase in its tags. A space at its start stays."""
    words = without_tags(phrase)
    space = " " if phrase[:1] == " " else ""
    return [Piece("<phrase>", True), Piece(space + words, False), Piece("</phrase>", True)] if words else []


FORM = Kosmos2()
