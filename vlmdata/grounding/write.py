"""Writes grounded texts in the form of a family of models, for the picture that the model gets, and reads a model's text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlmdata.catalog import suggest
from vlmdata.errors import RecipeError
from vlmdata.grounding.form import Form, Part, Piece, ReadText
from vlmdata.grounding.frame import Shown
from vlmdata.grounding.spans import Grounding, Span

__all__ = ["FORMS", "MIN_VISIBLE", "Piece", "ReadText", "check_form", "form_named", "plain_text", "read_text", "write_text"]

FORMS = tuple(sorted(path.stem for path in (Path(__file__).parent / "forms").glob("*.py") if path.stem != "__init__"))
MIN_VISIBLE = 0.2  # Kosmos-2's training, unilm/kosmos-2/train.sh


def check_form(form: str, where: str = "grounding") -> None:
    """Raise a RecipeError if there is no form of this name. `where` is the parameter that has the name."""
    if form not in FORMS:
        raise RecipeError(f"{where}: there is no form of grounded text named '{form}'.{suggest(form, list(FORMS))}")


def form_named(form: str) -> Form:
    """Return a form by its name."""
    check_form(form)
    own = importlib.import_module(f"vlmdata.grounding.forms.{form}").FORM
    assert isinstance(own, Form)
    return own


def write_text(
    text: str, grounding: Grounding | None, shown: Mapping[int, Shown], form: str, min_visible: float = MIN_VISIBLE
) -> list[Piece] | None:
    """Return a text in the form of a family of models, as pieces whose texts follow each other.

    `shown` has the images by the number that spans use. A box counts if at least `min_visible` of it is visible in the model's
    picture. A mention whose boxes do not count stays as words. An answer to detect or refer leaves them out.

    The result is None if the text is no longer true or complete in this picture: an answer to detect or refer without any box
    that counts, or a question about boxes (describe) of which one does not count. Then the caller leaves out the turn, the
    question with its answer.
    """
    own = form_named(form)
    if grounding is None:
        return merged([Piece(text, False)])
    if grounding.task == "describe" and not any(span.boxes for span in grounding.spans):
        return merged([Piece(_words(text, own), False)])
    task, spans = grounding.task, grounding.spans
    parts = _parts(text, spans, shown, own, min_visible)
    end = _words(text[spans[-1].end if spans else 0 :], own)
    if task == "mention":
        return merged(own.text(parts, end))
    if task == "describe":
        is_whole = all(len(part.boxes) == len(span.boxes) for part, span in zip(parts, spans, strict=True))
        return merged(own.question(task, parts, end)) if is_whole else None
    if not spans:
        return merged(own.nothing(_words(text, own)))
    if not any(span.boxes for span in spans):
        return merged(own.question(task, parts, end))
    seen = [part for part in parts if part.boxes]
    if not seen:
        return None
    return merged(own.detections(seen) if task == "detect" else own.places(seen))


def _parts(text: str, spans: Sequence[Span], shown: Mapping[int, Shown], form: Form, min_visible: float) -> list[Part]:
    parts: list[Part] = []
    at = 0
    for span in spans:
        numbers = []
        image = shown.get(span.image)
        if image is not None:
            found = (image.box(number, min_visible) for number in span.boxes)
            size = image.frame.width, image.frame.height
            numbers = [form.scale.encode(box, *size) for box in found if box is not None]
        before, phrase = text[at : span.start], text[span.start : span.phrase_end]
        parts.append(Part(_words(before, form), _words(phrase, form), tuple(numbers)))
        at = span.end
    return parts


def _words(text: str, form: Form) -> str:
    """Return words of the data. Where the form's markup is ordinary text, words that look like it get a space."""
    return text if form.has_tokens else form.disarmed(text)


def merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces without empty ones, with neighbours of the same kind as one piece. An empty text has no piece."""
    found: list[Piece] = []
    for piece in pieces:
        if found and found[-1].is_markup == piece.is_markup:
            found[-1] = Piece(found[-1].text + piece.text, piece.is_markup)
        elif piece.text:
            found.append(piece)
    return found


def plain_text(pieces: Sequence[Piece], form: str) -> str:
    """Return pieces as one text, for a reader that takes every control token for one.

    Where ordinary text looks like a control token of the form, a space goes behind its first character: `<|box_start|>` of a
    caption becomes `< |box_start|>`. Where the markup is ordinary text for the model, `write_text` has done this already.
    """
    own = form_named(form)
    changes = own.has_tokens
    return "".join(own.disarmed(piece.text) if changes and not piece.is_markup else piece.text for piece in pieces)


def read_text(text: str, form: str, width: int, height: int) -> ReadText:
    """Return a model's text without markup, with its phrases and boxes, as fractions of the picture of this size.

    It never raises because of the text. What is not in the form stays as ordinary text or is left out; control tokens of the
    form are removed. The text may be of any length; characters after the first million are not read.
    """
    return form_named(form).read(text, width, height)
