"""Makes grounded texts from words and boxes, for tests."""

from collections.abc import Sequence

from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.spans import Box, Grounding, Span, Task, plain_boxes
from vlmdata.grounding.write import Piece, plain_text, write_text

BOXES: tuple[Box, ...] = ((0.125, 0.25, 0.5, 0.75), (0.6, 0.1, 0.9, 0.4))
Words = str | tuple[str, Sequence[int]]


def grounded(task: Task, words: Sequence[Words], boxes: Sequence[Box] = BOXES) -> tuple[str, Grounding]:
    """Return a text and its grounding. Each of `words` is a text, or a phrase with the numbers of its boxes."""
    text, spans = "", []
    for one in words:
        if isinstance(one, str):
            text += one
            continue
        phrase, numbers = one
        start = len(text)
        middle = start + len(phrase)
        text += phrase + (" " if phrase and numbers else "") + plain_boxes([boxes[number] for number in numbers])
        spans.append(Span(start, middle, len(text), text[start:], 0, tuple(numbers)))
    return text, Grounding(task, tuple(spans))


def shown(boxes: Sequence[Box | None] = BOXES, width: int = 640, height: int = 480) -> dict[int, Shown]:
    return {0: Shown(boxes, Frame(width, height))}


def written(form: str, task: Task, words: Sequence[Words], boxes: Sequence[Box] = BOXES) -> str:
    """Return the text of a form for a picture of 640 x 480."""
    pieces = write_text(*grounded(task, words, boxes), shown(boxes), form)
    assert pieces is not None
    return plain_text(pieces, form)


def markup(pieces: Sequence[Piece]) -> list[str]:
    return [piece.text for piece in pieces if piece.is_markup]
