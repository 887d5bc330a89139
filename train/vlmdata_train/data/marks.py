"""Put marks into the input of a chat template, to find texts in its output.

Marks are Unicode noncharacters, which cleaned texts cannot contain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

IMAGE_MARK = "\ufdd0"  # marks the place of an image in the content of a message
VIDEO_MARK = "\ufdd4"  # marks the place of a video
MEDIA = re.compile(f"[{IMAGE_MARK}{VIDEO_MARK}]")
_OPEN, _CLOSE = "\ufdd1", "\ufdd2"  # before and after an answer; the number of the message follows each mark
MARKS = re.compile("[\ufdd0-\ufdef\ud800-\udfff]")  # marks, and halves of surrogate pairs, which no tokenizer accepts
_MASK = "\ufdd3"  # replaces each character of an answer
_PLACES = re.compile("([\ufdd1\ufdd2])([\ufde0-\ufdef]+)")


def _mark(text: str, number: int) -> str:
    """Return the text with an opening mark before it and a closing mark after it, or an empty text unchanged.

    Both marks contain `number`.
    """
    if not text:
        return text
    digits = "".join(chr(0xFDE0 + int(digit, 16)) for digit in f"{number:x}")
    return f"{_OPEN}{digits}{text}{_CLOSE}{digits}"


def mark_whole(text: str, number: int) -> str:
    """Return the text with marks around it. Its leading and trailing white space is inside the marks."""
    return _mark(text, number)


def mark_within(text: str, number: int) -> str:
    """Return the text with marks around its words. Outer white space and the tags <think> and </think> are not marked.

    Templates may remove such white space and tags, or write their own.
    """
    before, closed, after = text.partition("</think>")
    lead, opened, thought = before.partition("<think>")
    if closed and not opened:  # the template may write the opening tag
        lead, thought = "", lead
    if closed and not lead.strip():
        return lead + opened + _mark_inner(thought, number) + closed + _mark_inner(after, number)
    return _mark_inner(text, number)


def _mark_inner(text: str, number: int) -> str:
    """Return the text with marks around it, but with its leading and trailing white space outside the marks."""
    words = text.strip()
    start = text.index(words)
    return text[:start] + _mark(words, number) + text[start + len(words) :]


def split_at_media(content: str) -> list[tuple[str, str, str]]:
    """Split the content of a message at its images and videos, and return a tuple (start, text, end) for each piece.

    `start` and `end` are the line ends that `Prompter.messages` adds between a text and an image, or "" where there is none.
    They are not part of the text. The marks around an answer therefore do not enclose them, and a template that accepts a list
    of texts and images does not need them.
    """
    pieces = MEDIA.split(content)
    split = []
    for number, piece in enumerate(pieces):
        start = int(number > 0 and piece.startswith("\n"))
        end = len(piece) - int(number < len(pieces) - 1 and piece[start:].endswith("\n"))
        split.append((piece[:start], piece[start:end], piece[end:]))
    return split


def marked_message(message: Mapping[str, Any], number: int, mark: Callable[[str, int], str]) -> dict[str, Any]:
    """Return a message with marks, which contain `number`, around its texts.

    `mark` adds the marks to the content and the reasoning. The names of tool calls are marked as a whole.
    """
    pieces = [before + mark(text, number) + after for before, text, after in split_at_media(message["content"])]
    media = [*MEDIA.findall(message["content"]), ""]
    marked = {**message, "content": "".join(map("".join, zip(pieces, media, strict=True)))}
    if message.get("reasoning_content"):
        marked["reasoning_content"] = mark(message["reasoning_content"], number)
    if message.get("tool_calls"):
        marked["tool_calls"] = [{**call, "name": _mark(call["name"], number)} for call in message["tool_calls"]]
    return marked


def unmark(marked: str) -> tuple[str, dict[int, tuple[int, int]]]:
    """Return the text without marks, and a dict from the number of each mark to the range (start, end) that was marked.

    The range is in the returned text. It goes from the first opening mark with this number to the last closing mark.
    """
    pieces: list[str] = []
    opened: dict[int, int] = {}
    closed: dict[int, int] = {}
    length = at = 0
    for found in _PLACES.finditer(marked):
        pieces.append(marked[at : found.start()])
        length += found.start() - at
        at = found.end()
        number = int("".join(f"{ord(digit) - 0xFDE0:x}" for digit in found[2]), 16)
        if found[1] == _OPEN:
            opened.setdefault(number, length)
        else:
            closed[number] = length
    places = {number: (start, closed[number]) for number, start in opened.items() if closed.get(number, -1) >= start}
    return "".join([*pieces, marked[at:]]), places


def mask(text: str) -> str:
    """Return a string of marks that is as long as the text."""
    return _MASK * len(text)


def unmask(masked: str, texts: Mapping[int, str], plain: str) -> dict[int, tuple[int, int]]:
    """Return the range (start, end) of each text in `plain`, which is the output of a template.

    `masked` is the template's output for the same conversation with each text replaced by `mask(text)`. Return an empty dict
    unless each run of marks in `masked` belongs to one text, in order, and `plain` is `masked` with the texts put back.
    """
    runs = [found.span() for found in re.finditer(f"{_MASK}+", masked)]
    if [end - start for start, end in runs] != [len(text) for text in texts.values()]:
        return {}
    in_order = iter(texts.values())
    return dict(zip(texts, runs, strict=True)) if re.sub(f"{_MASK}+", lambda _: next(in_order), masked) == plain else {}
