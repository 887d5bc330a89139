"""Qwen2.5-VL: JSON objects such as `{"bbox_2d": [80, 120, 320, 360], "label": "dog"}`.

Numbers are pixels of the picture that the model gets, which `smart_resize` makes: its sides are multiples of 28. They are
rounded, and at most the side less 1. Bin: a pixel.

Published: questions in free words that ask for JSON at their end, and answers with a list of objects in a block of code. The
questions keep their own words, and get the sentence that asks for JSON. For objects that are not in the picture the list is
empty. Nothing is published for a text with boxes: the objects of a phrase stand behind its words.

Source: cookbooks/spatial_understanding.ipynb and qwen-vl-finetune/tools/process_bbox.ipynb of QwenLM/Qwen2.5-VL (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Part, Piece, ReadText
from vlmdata.grounding.json_boxes import KEY, behind_words, listed, read_objects
from vlmdata.grounding.scales import Numbers, Pixels
from vlmdata.grounding.spans import Task

ASKS = {"detect": " Output all the coordinates in JSON format.", "refer": " Output its bbox coordinates using JSON format."}


class Qwen25VL(Form):
    scale: ClassVar = Pixels()
    control: ClassVar = KEY
    has_tokens: ClassVar = False

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        return behind_words(phrase, boxes)

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        return [*super().question(task, parts, end), Piece(ASKS.get(task, ""), False)]

    def detections(self, parts: Sequence[Part]) -> list[Piece]:
        return listed(parts)

    def nothing(self, text: str) -> list[Piece]:
        return listed([])

    def read(self, text: str, width: int, height: int) -> ReadText:
        return read_objects(text, self.scale, width, height)


FORM = Qwen25VL()
