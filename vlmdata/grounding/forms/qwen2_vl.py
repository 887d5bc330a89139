"""Qwen2-VL: `<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(125,250),(500,750)<|box_end|>`.

Several boxes of a phrase follow each other. Numbers are thousandths of the picture's width and height, rounded. Bin: 1/1000.

Nothing is published for questions: they keep their own words, with the names of objects between `<|object_ref_start|>` and
`<|object_ref_end|>`. Answers are mentions, separated by commas.

A phrase has no `<` or `>`, and no line breaks: they become spaces.

Source: Wang et al. 2024 (Qwen2-VL), and qwen-vl-finetune/tools/process_bbox.ipynb of QwenLM/Qwen3-VL (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Found, Piece, ReadText, boxes_of, scan, without_tags
from vlmdata.grounding.scales import Numbers, Steps

POINT = r"\( ?\d{1,4}, ?\d{1,4} ?\)"
BOX = rf"<\|box_start\|>{POINT}, ?{POINT}<\|box_end\|>"
PHRASE = re.compile(rf"(?:<\|object_ref_start\|>([^<]++)<\|object_ref_end\|>)?+((?:{BOX})++)")


class Qwen2VL(Form):
    scale: ClassVar = Steps(1000, 1000)
    control: ClassVar = re.compile(r"<\|(?:object_ref|box)_(?:start|end)\|>")

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        pieces = self.name(phrase)
        for x0, y0, x1, y1 in boxes:
            corners = f"({x0},{y0}),({x1},{y1})"
            pieces += [Piece("<|box_start|>", True), Piece(corners, False), Piece("<|box_end|>", True)]
        return pieces

    def name(self, phrase: str) -> list[Piece]:
        words = without_tags(phrase)
        return [Piece("<|object_ref_start|>", True), Piece(words, False), Piece("<|object_ref_end|>", True)] if words else []

    def read(self, text: str, width: int, height: int) -> ReadText:
        def phrase(match: re.Match[str]) -> tuple[str, Found]:
            groups = [re.findall(r"\d+", box) for box in match[2].split("<|box_end|>")]
            boxes = boxes_of(self.scale, [[int(number) for number in group] for group in groups], width, height)
            return match[1] or "", Found((match[1] or "").strip(), boxes)

        return scan(text, PHRASE, phrase, self.control)


FORM = Qwen2VL()
