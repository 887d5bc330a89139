"""Objects with boxes as JSON within a text: `{"bbox_2d": [125, 250, 500, 750], "label": "dog"}`.

A list of objects stands in a block of code, one on a line, as the models of Qwen answer. Within a text, the objects of a phrase
stand behind its words. A label is a JSON string, so it may have any character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from vlmdata.grounding.form import MOST_CHARACTERS, Found, Part, Piece, ReadText, boxes_of
from vlmdata.grounding.scales import Numbers, Scale

KEY = re.compile(r'"bbox_2d"')
SPACE = r"\s{0,40}+"
NUMBER = r"\d{1,6}+(?:\.\d{1,9}+)?+"
STRING = r'"(?:[^"\\]|\\.)*+"'
LIST = rf"\[{SPACE}(?:{NUMBER}(?:{SPACE},{SPACE}{NUMBER}){{0,7}}+{SPACE})?+\]"
MEMBER = rf"{STRING}{SPACE}:{SPACE}(?:{STRING}|{LIST}|{NUMBER})"
OBJECT = re.compile(rf"\{{{SPACE}{MEMBER}(?:{SPACE},{SPACE}{MEMBER}){{0,7}}+{SPACE}\}}", re.DOTALL)
OPENS = re.compile(r"(?:```(?:json)?\s{0,40}+)?+\[\s{0,40}+\Z")
CLOSES = re.compile(r"\s{0,40}+\](?:\s{0,40}+```)?+")
BETWEEN = re.compile(r"\s{0,40}+,?\s{0,40}+")
EMPTY = re.compile(r"(?:```(?:json)?\s{0,40}+)?+\[\s{0,40}+\](?:\s{0,40}+```)?+")
LOOK_BACK = 100  # characters before an object in which its list may begin


def behind_words(phrase: str, boxes: Sequence[Numbers]) -> list[Piece]:
    """Return a phrase with its boxes behind it, as one object or as a list of objects."""
    objects = ", ".join(_object(phrase, box) for box in boxes)
    return [Piece(f"{phrase} " if phrase else "", False), Piece(objects if len(boxes) == 1 else f"[{objects}]", False)]


def listed(parts: Sequence[Part]) -> list[Piece]:
    """Return a block of code with a list of all boxes. Without a part, the list is empty."""
    lines = ",\n".join(f"\t{_object(part.phrase, box)}" for part in parts for box in part.boxes)
    return [Piece(f"```json\n[\n{lines}\n]\n```" if lines else "```json\n[]\n```", False)]


def _object(label: str, box: Numbers) -> str:
    numbers = f'"bbox_2d": [{", ".join(map(str, box))}]'
    return f'{{{numbers}, "label": {json.dumps(label, ensure_ascii=False)}}}' if label else f"{{{numbers}}}"


def read_objects(text: str, scale: Scale, width: int, height: int) -> ReadText:
    """Return the objects of a text and the text without them, and without the brackets and block of code of their lists.

    Objects with the same label that follow each other are one phrase with several boxes.
    """
    text = text[:MOST_CHARACTERS].strip()
    if EMPTY.fullmatch(text):
        return ReadText("", ())
    kept: list[str] = []
    found: list[Found] = []
    at = 0
    for match in OBJECT.finditer(text):
        one = _found(match[0], scale, width, height)
        if one is None:
            continue
        between = text[at : match.start()]
        follows = at > 0 and BETWEEN.fullmatch(between) is not None
        if not follows:
            between = CLOSES.sub("", between, count=1) if at and CLOSES.match(between) else between
            opens = OPENS.search(between, max(len(between) - LOOK_BACK, 0))
            kept.append((between[: opens.start()] if opens else between).removesuffix(" "))
        if follows and found and found[-1].phrase == one.phrase:
            found[-1] = Found(one.phrase, found[-1].boxes + one.boxes)
        elif one.boxes:
            found.append(one)
        at = match.end()
    end = text[at:]
    closes = CLOSES.match(end) if at else None
    kept.append(end[closes.end() :] if closes else end)
    words = "".join(kept).strip()
    return ReadText(words, tuple(found))


def _found(text: str, scale: Scale, width: int, height: int) -> Found | None:
    """Return what an object says, or None if it is no object with a box."""
    try:
        value: Any = json.loads(text, strict=False)
    except ValueError:
        return None
    box, label = value.get("bbox_2d"), value.get("label", "")
    if not isinstance(box, list) or not isinstance(label, str):
        return None
    whole = label.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON may escape half a character
    return Found(whole, boxes_of(scale, [box], width, height))
