"""Marks in the input of a chat template, to find texts in its output: Unicode noncharacters, which no text may contain."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

IMAGE_MARK = "\ufdd0"  # place of an image in the content of a message
_OPEN, _CLOSE = "\ufdd1", "\ufdd2"  # around what an assistant says; the number of its message follows
MARKS = re.compile("[\ufdd0-\ufdef\ud800-\udfff]")  # and halves of surrogate pairs, which no tokenizer accepts
_MASK = "\ufdd3"  # replaces each character of an answer
_PLACES = re.compile("([\ufdd1\ufdd2])([\ufde0-\ufdef]+)")


def _mark(text: str, number: int) -> str:
    if not text:
        return text
    digits = "".join(chr(0xFDE0 + int(digit, 16)) for digit in f"{number:x}")
    return f"{_OPEN}{digits}{text}{_CLOSE}{digits}"


def mark_whole(text: str, number: int) -> str:
    """Mark a text from its first character to its last."""
    return _mark(text, number)


def mark_within(text: str, number: int) -> str:
    """Mark a text inside its outer white space and inside the tags of a thought: templates remove both or write their own."""
    before, closed, after = text.partition("</think>")
    lead, opened, thought = before.partition("<think>")
    if closed and not opened:  # the template may write the opening tag
        lead, thought = "", lead
    if closed and not lead.strip():
        return lead + opened + _mark_inner(thought, number) + closed + _mark_inner(after, number)
    return _mark_inner(text, number)


def _mark_inner(text: str, number: int) -> str:
    words = text.strip()
    start = text.index(words)
    return text[:start] + _mark(words, number) + text[start + len(words) :]


def split_at_images(content: str) -> list[tuple[str, str, str]]:
    """Split a content at its images into (line end or nothing, text, line end or nothing).

    These line ends join texts to images and are ours, not the text's. Templates that take parts do not need them; marks are
    inside of them.
    """
    pieces = content.split(IMAGE_MARK)
    split = []
    for number, piece in enumerate(pieces):
        start = int(number > 0 and piece.startswith("\n"))
        end = len(piece) - int(number < len(pieces) - 1 and piece[start:].endswith("\n"))
        split.append((piece[:start], piece[start:end], piece[end:]))
    return split


def marked_message(message: Mapping[str, Any], number: int, mark: Callable[[str, int], str]) -> dict[str, Any]:
    """Mark what a message says: its content, its reasoning, and the names of its tool calls."""
    pieces = [before + mark(text, number) + after for before, text, after in split_at_images(message["content"])]
    marked = {**message, "content": IMAGE_MARK.join(pieces)}
    if message.get("reasoning_content"):
        marked["reasoning_content"] = mark(message["reasoning_content"], number)
    if message.get("tool_calls"):
        marked["tool_calls"] = [{**call, "name": _mark(call["name"], number)} for call in message["tool_calls"]]
    return marked


def unmark(marked: str) -> tuple[str, dict[int, tuple[int, int]]]:
    """Return the text without marks, and for each number where its first mark opens and its last one closes."""
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
    """Return one mark for each character of a text."""
    return _MASK * len(text)


def unmask(masked: str, texts: Mapping[int, str], plain: str) -> dict[int, tuple[int, int]]:
    """Return the place of each text in `plain`; an empty dict unless these texts, in order, are all that is masked."""
    runs = [found.span() for found in re.finditer(f"{_MASK}+", masked)]
    if [end - start for start, end in runs] != [len(text) for text in texts.values()]:
        return {}
    in_order = iter(texts.values())
    return dict(zip(texts, runs, strict=True)) if re.sub(f"{_MASK}+", lambda _: next(in_order), masked) == plain else {}
