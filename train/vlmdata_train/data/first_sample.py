"""Show the first sample of a run in a terminal, as the model reads it. [[ and ]] enclose the text that has a loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from vlmdata_train.data.plain_text import plain
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.model.batch import IGNORE

HEAD, TAIL = 1200, 600  # characters shown from the beginning and the end of a long sample, about one screen
LINE = 60  # a line end counts as this many characters

Piece = tuple[str, bool]  # a character, an escape or an image, and whether it has a loss


def shown(tokenizer: Any, prompt: Prompt) -> str:
    """Return a prompt as text for a terminal, shortened to about one screen.

    `[[` and `]]` enclose text with a loss. An image for which 576 tokens are written is shown as `<image x 576>`. Control
    characters are escaped. A backslash precedes each pair of brackets that the sample itself contains.
    """
    pieces = list(_pieces(tokenizer, prompt))
    head = _fitting(pieces, HEAD)
    tail = _fitting(pieces[head:][::-1], TAIL)
    middle = len(pieces) - head - tail
    if middle <= 0:
        return _marked(pieces)
    return f"{_marked(pieces[:head])}\n... {middle:,} characters are not shown ...\n{_marked(pieces[head + middle :])}"


def _pieces(tokenizer: Any, prompt: Prompt) -> Iterator[Piece]:
    """Yield each character or image of a prompt, and whether it has a loss. Control characters, `[[` and `]]` are escaped."""
    images = {image.start: image.end - image.start for image in prompt.images if image.end > image.start}
    at, end = 0, len(prompt.input_ids)
    while at < end:
        if at in images:
            yield f"<image x {images[at]}>", False
            at += images[at]
            continue
        has_loss, start = prompt.labels[at] != IGNORE, at
        while at < end and at not in images and (prompt.labels[at] != IGNORE) == has_loss:
            at += 1
        for character in _text(tokenizer, prompt.input_ids, start, at).replace("[[", "\\[[").replace("]]", "\\]]"):
            yield character if character == "\n" else plain(character), has_loss


def _text(tokenizer: Any, ids: list[int], start: int, end: int) -> str:
    """Return the text of the tokens from `start` to `end`.

    The token before them is decoded too, because SentencePiece tokens lose a leading blank if they are decoded alone.
    """
    before = tokenizer.decode(ids[start - 1 : start]) if start else ""
    both = tokenizer.decode(ids[max(0, start - 1) : end])
    return str(both[len(before) :] if both.startswith(before) else tokenizer.decode(ids[start:end]))


def _fitting(pieces: list[Piece], room: int) -> int:
    """Return how many of the first pieces fit into `room` characters. A line end counts as `LINE` characters."""
    for number, (text, _) in enumerate(pieces):
        room -= LINE if text == "\n" else len(text)
        if room < 0:
            return number
    return len(pieces)


def _marked(pieces: list[Piece]) -> str:
    """Return the pieces as one text, with `[[` and `]]` around the pieces that have a loss."""
    texts = ((has_loss, "".join(text for text, _ in group)) for has_loss, group in groupby(pieces, lambda piece: piece[1]))
    return "".join(f"[[{text}]]" if has_loss else text for has_loss, text in texts)
