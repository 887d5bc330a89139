"""Ferret: `the dog [125, 250, 500, 750]`, with several boxes one behind the other.

Numbers are thousandths of the picture's width and height, rounded down; the picture is resized to a square. Bin: 1/1000. The
numbers are ordinary text for the model.

Published: texts with boxes behind words, and the question `What is the location of the dog in the image?`, whose answer is a
phrase with its box. A question about a box has only its numbers here: the token for the features of a region, which the
model's own code adds behind them, belongs to that code. Nothing is published for a list of objects: it is written as words
with boxes, separated by commas.

A phrase has round brackets in place of square ones. Nothing marks where a phrase begins: what is read as the phrase is the
words back to the box or punctuation mark before.

Source: You et al. 2023 (Ferret); ferret/eval/model_refcoco.py and ferret/serve/gradio_web_server.py of apple/ml-ferret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.bracket_boxes import read_brackets
from vlmdata.grounding.form import Form, Part, Piece, ReadText, without_brackets
from vlmdata.grounding.scales import Numbers, Steps
from vlmdata.grounding.spans import Task

BOX = r"\[\d{1,4}(?:, ?\d{1,4}){3}\]"
BOXES = re.compile(rf" ?{BOX}(?: {BOX})*+")


class Ferret(Form):
    scale: ClassVar = Steps(1000, 1000, rounds_down=True)
    control: ClassVar = re.compile(r"\[(?=\d{1,4},)")
    has_tokens: ClassVar = False

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        words = without_brackets(phrase)
        numbers = " ".join(f"[{', '.join(map(str, box))}]" for box in boxes)
        return [Piece(f"{words} {numbers}" if words else numbers, False)]

    def question(self, task: Task, parts: Sequence[Part], end: str) -> list[Piece]:
        if task == "refer":
            names = ", ".join(without_brackets(part.phrase) for part in parts)
            return [Piece(f"What is the location of {names} in the image?", False)]
        return super().question(task, parts, end)

    def read(self, text: str, width: int, height: int) -> ReadText:
        return read_brackets(text, BOXES, _groups, self.scale, (width, height))


def _groups(text: str) -> list[list[int]]:
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return [numbers[at : at + 4] for at in range(0, len(numbers), 4)]


FORM = Ferret()
