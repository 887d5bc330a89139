"""Shikra: `the dog[0.125,0.250,0.500,0.750]`, with several boxes as `[...;...]`.

Numbers are fractions of the width and height of the picture, which is padded to a square, with three decimals, rounded. Bin:
1/1000. The numbers are ordinary text for the model.

Published: texts with boxes directly behind words, and `Answer: [...] .` to a question for a place. Questions keep their own
words. Nothing is published for a list of objects: it is written as words with boxes, separated by commas.

A phrase has round brackets in place of square ones. Nothing marks where a phrase begins: what is read as the phrase is the
words back to the box or punctuation mark before.

Source: mllm/dataset of shikras/shikra (process_function/box_process_function.py, single_image_dataset/rec.py and flickr.py;
licence CC BY-NC 4.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.bracket_boxes import read_brackets
from vlmdata.grounding.form import Form, Part, Piece, ReadText, without_brackets
from vlmdata.grounding.scales import Numbers, Steps

NUMBER = r"[01](?:\.\d{1,6}+)?+"
BOX = rf"{NUMBER}(?:,{NUMBER}){{3}}"
BOXES = re.compile(rf" ?\[{BOX}(?:;{BOX})*+\]")


class Shikra(Form):
    scale: ClassVar = Steps(1000, 1000)
    control: ClassVar = re.compile(r"\[(?=[01][.,])")
    has_tokens: ClassVar = False

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        numbers = ";".join(",".join(f"{number / 1000:.3f}" for number in box) for box in boxes)
        return [Piece(f"{without_brackets(phrase)}[{numbers}]", False)]

    def places(self, parts: Sequence[Part]) -> list[Piece]:
        return [Piece("Answer: ", False), *self.mention("", [box for part in parts for box in part.boxes]), Piece(" .", False)]

    def read(self, text: str, width: int, height: int) -> ReadText:
        return read_brackets(text, BOXES, _groups, self.scale, (width, height))


def _groups(text: str) -> list[list[float]]:
    return [[1000 * float(number) for number in box.split(",")] for box in text.strip(" []").split(";")]


FORM = Shikra()
