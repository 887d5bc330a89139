"""InternVL 1.5 to 2.5: `<ref>the dog</ref><box>[[125, 250, 500, 750]]</box>`.

Numbers are thousandths of the width and height of the whole picture, before it is cut into tiles, rounded. Bin: 1/1000.

Published: the question for a place, `Please provide the bounding box coordinate of the region this sentence describes:
<ref>the dog</ref>`, and answers with one object on a line; a list of objects stands in a block of code. Questions for several
objects keep their own words, with each name in `<ref>`. Nothing is published for questions about boxes: they keep their own
words.

A phrase has no `<` or `>`, and no line breaks: they become spaces.

Source: "Grounding / Detection Data" in the documentation of OpenGVLab/InternVL (MIT).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Found, Part, Piece, ReadText, boxes_of, joined_pieces, scan, without_tags
from vlmdata.grounding.scales import Numbers, Steps
from vlmdata.grounding.spans import Task

ASKS = "Please provide the bounding box coordinate of the region this sentence describes: "
BOX = r"\[ ?\d{1,4}(?:, ?\d{1,4}){3} ?\]"
REF = re.compile(rf"(?:<ref>([^<]++)</ref> ?)?+<box>\[({BOX}(?:, ?{BOX})*+)\]</box>")
BLOCK = re.compile(r"```\n?+")


class InternVL(Form):
    scale: ClassVar = Steps(1000, 1000)
    control: ClassVar = re.compile(r"</?(?:ref|box)>")

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        numbers = ", ".join(f"[{', '.join(map(str, box))}]" for box in boxes)
        return [*self.name(phrase), Piece("<box>", True), Piece(f"[{numbers}]", False), Piece("</box>", True)]

    def name(self, phrase: str) -> list[Piece]:
        words = without_tags(phrase)
        return [Piece("<ref>", True), Piece(words, False), Piece("</ref>", True)] if words else []

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        if task == "refer":
            return [Piece(ASKS, False), *(piece for part in parts for piece in self.name(part.phrase))]
        return super().question(task, parts, end)

    def detections(self, parts: Sequence[Part]) -> list[Piece]:
        return [Piece("```\n", False), *self.places(parts), Piece("\n```", False)]

    def places(self, parts: Sequence[Part]) -> list[Piece]:
        return joined_pieces([self.mention(part.phrase, part.boxes) for part in parts], Piece("\n", False))

    def read(self, text: str, width: int, height: int) -> ReadText:
        def phrase(match: re.Match[str]) -> tuple[str, Found]:
            numbers = [int(number) for number in re.findall(r"\d+", match[2])]
            groups = [numbers[at : at + 4] for at in range(0, len(numbers), 4)]
            return match[1] or "", Found((match[1] or "").strip(), boxes_of(self.scale, groups, width, height))

        found = scan(text, REF, phrase, self.control)
        return ReadText(BLOCK.sub("", found.text).strip(), found.found) if found.found else found


FORM = InternVL()
