"""Molmo: `<point x="31.2" y="50.0" alt="dog">dog</point>` and `<points x1="31.2" y1="50.0" x2="80.0" y2="12.5" alt="dogs">`.

The model knows points and no boxes: a box becomes its centre, in percent of the picture's width and height with one decimal,
rounded. Several points are in the order of x, then y. Bin: 1/1000 of a side, about the centre. What is read is a box without an
area. The markup is ordinary text for the model.

Published: points in the place of words, and answers that are only points. `There are none.` answers a question for objects that
are not in the picture. Questions keep their own words. Nothing is published for questions about a point: its point stands in
the question.

A phrase has no `<`, `>` or line breaks, and `'` in place of `"`.

Source: Deitke et al. 2024 (Molmo and PixMo); olmo/data/data_formatter.py of allenai/molmo (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from vlmdata.grounding.form import Form, Found, Piece, ReadText, boxes_of, scan, without_tags
from vlmdata.grounding.scales import Centres, Numbers

POINTS = re.compile(r'<points?+((?:\s{1,3}+[a-z]{1,4}+\d{0,4}+="[^"<]*+")*+)\s{0,3}+>([^<]*+)</points?+>')
PLACE = re.compile(r'\s([xy])(\d{0,4}+)="(\d{1,3}+(?:\.\d{1,6}+)?+)"')
STRAY = re.compile(r"</?points?+\b[^<>]{0,200}+>")


class Molmo(Form):
    scale: ClassVar = Centres(1000)
    control: ClassVar = re.compile(r"</?points?+\b")
    has_tokens: ClassVar = False

    def mention(self, phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
        words = without_tags(phrase)
        points = [f"{x / 10:.1f}|{y / 10:.1f}".split("|") for x, y in sorted(boxes)]
        if len(points) == 1:
            tag, places = "point", f'x="{points[0][0]}" y="{points[0][1]}"'
        else:
            tag, places = "points", " ".join(f'x{at}="{x}" y{at}="{y}"' for at, (x, y) in enumerate(points, 1))
        alt = f' alt="{words.replace(chr(34), chr(39))}"' if words else ""
        return [Piece(f"<{tag} {places}{alt}>{words}</{tag}>", False)]

    def nothing(self, text: str) -> list[Piece]:
        return [Piece("There are none.", False)]

    def read(self, text: str, width: int, height: int) -> ReadText:
        def points(match: re.Match[str]) -> tuple[str, Found]:
            places = {(axis, at): 10 * float(number) for axis, at, number in PLACE.findall(match[1])}
            pairs = [(x, places["y", at]) for (axis, at), x in places.items() if axis == "x" and ("y", at) in places]
            return match[2], Found(match[2].strip(), boxes_of(self.scale, pairs, width, height))

        return scan(text, POINTS, points, STRAY)


FORM = Molmo()
