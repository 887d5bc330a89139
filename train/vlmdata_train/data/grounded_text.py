"""Texts whose words stand for boxes: read them with their images, and write the boxes for the picture that the model gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vlmdata.grounding.exchanges import exchanges
from vlmdata.grounding.frame import Shown
from vlmdata.grounding.neutral import neutral_text
from vlmdata.grounding.spans import read_grounding
from vlmdata.grounding.stored_boxes import fractions_of
from vlmdata.grounding.write import MIN_VISIBLE, Piece, write_text
from vlmdata_train.data.collate import size_of
from vlmdata_train.data.document import BoxedImage, Document, GroundedText, WrittenText
from vlmdata_train.data.expansion import has_several
from vlmdata_train.model.image_plan import ImagePlan

Write = Callable[[Iterable[Piece]], WrittenText]


def grounded(text: str, grounding: Any, images: Mapping[int, BoxedImage]) -> str:
    """Return a text with its grounding, from the value in a sample's JSON, or the text itself if the value has none."""
    found = read_grounding(grounding, text)
    if found is None:
        return text
    result = GroundedText(text)
    result.grounding, result.images = found, images
    return result


def with_written_boxes(document: Document, plan: ImagePlan, write: Write) -> Document:
    """Return a document whose texts have the boxes of the pictures that the model gets, in the model's form.

    `write` cleans the pieces of a text. Frames of a video have no boxes. If a text is no longer true because its boxes are out
    of view, it is left out: in a conversation, the question with all texts up to the next question. Their images stay if
    another question follows. `unseen_turns` counts these questions, or texts. Raises ImageError if an image with boxes has no
    known size, and RecipeError if the preprocessing cannot place boxes.
    """
    if not any(isinstance(position, GroundedText) for position in document.positions):
        return document
    media = [position for position in document.positions if not isinstance(position, str)]
    several = has_several(media)
    texts = [
        _written(position, media, several, plan, write) if isinstance(position, GroundedText) else position
        for position in document.positions
    ]
    unseen = [number for number, text in enumerate(texts) if text is None]
    if document.roles is None:
        return replace(document, positions=[text for text in texts if text is not None], unseen_turns=len(unseen))
    of = exchanges(document.roles, document.turns)
    lost = {of[number] for number in unseen}
    last = max((number for number in of if number not in lost), default=0)
    asked = [not isinstance(p, str) and role == "user" for p, role in zip(document.positions, document.roles, strict=True)]
    kept = [number for number, is_picture in enumerate(asked) if of[number] not in lost or (is_picture and of[number] < last)]
    return replace(
        document, positions=[text for number in kept if (text := texts[number]) is not None],
        roles=[document.roles[number] for number in kept], unseen_turns=len(lost),
        turns=None if document.turns is None else [document.turns[number] for number in kept],
    )  # fmt: skip


def has_turns(document: Document) -> bool:
    """Return whether a document has a text with a loss: an answer, or any text outside of a conversation."""
    roles = document.roles or ["assistant"] * len(document.positions)
    return any(isinstance(p, str) and role == "assistant" for p, role in zip(document.positions, roles, strict=True))


def _written(text: GroundedText, media: Sequence[Any], several: bool, plan: ImagePlan, write: Write) -> str | None:
    """Return a text in the model's form, or None if it is no longer true of what the model sees."""
    shown = {
        number: _shown(image, several, plan)
        for number, image in text.images.items()
        if any(image.picture is item for item in media)
    }
    if plan.grounding is None:
        return neutral_text(text, text.grounding, shown, MIN_VISIBLE)
    pieces = write_text(text, text.grounding, shown, plan.grounding.name, plan.grounding.min_visible)
    return None if pieces is None else write(pieces)


def _shown(image: BoxedImage, several: bool, plan: ImagePlan) -> Shown:
    width, height = size_of(image.picture)
    return Shown(fractions_of(image.boxes, width, height), plan.frame(width, height, several=several))
