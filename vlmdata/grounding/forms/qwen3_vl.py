"""Qwen3-VL: JSON objects such as `{"bbox_2d": [125, 250, 500, 750], "label": "dog"}`.

Numbers are thousandths of the picture's width and height, rounded. Bin: 1/1000. GLM-4.1V and later use the same form.

Published: questions in free words that ask for JSON at their end, and answers with a list of objects in a block of code; names
of objects that are not in the picture are skipped. The questions keep their own words, and get the sentence that asks for
JSON. Nothing is published for a text with boxes: the objects of a phrase stand behind its words.

Source: cookbooks/2d_grounding.ipynb of QwenLM/Qwen3-VL (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Part, Piece, ReadText
from vlmdata.grounding.json_boxes import KEY, behind_words, listed, read_objects
from vlmdata.grounding.scales import Numbers, Steps
from vlmdata.grounding.spans import Task

ASKS = " Report bbox coordinates in JSON format."


class Qwen3VL(Form):
    scale: ClassVar = Steps(1000, 1000)
    control: ClassVar = KEY
    has_tokens: ClassVar = False

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        return behind_words(phrase, boxes)

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        return [*super().question(task, parts, end), Piece("" if task == "describe" else ASKS, False)]

    def detections(self, parts: Sequence[Part]) -> list[Piece]:
        return listed(parts)

    def nothing(self, text: str) -> list[Piece]:
        return listed([])

    def read(self, text: str, width: int, height: int) -> ReadText:
        return read_objects(text, self.scale, width, height)


FORM = Qwen3VL()
