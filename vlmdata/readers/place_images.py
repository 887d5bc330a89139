"""Put the images of a conversation record at the positions that its messages show: empty image parts, or `<image>` in texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmdata.readers.tool_calls import Unfit

PLACEHOLDER = "<image>"
Form = Literal["text", "list", "image_parts"]


class Slot:
    """An image part that names no image, such as {"type": "image"} in TRL's data. It takes the next image of the record."""


@dataclass(frozen=True)
class Marked:
    """A text of the kind "reasoning" or "tool_call", as in a row's `turns`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Message:
    """The turn of one speaker. Each item of `parts` is a string, a `Marked` text, a `Slot`, or an image from `image_of`.

    `form` states how the record writes the content: as a text, as a list of texts, or as a list with image parts.
    """

    role: str
    parts: list[Any]
    own: Mapping[str, Any] = field(default_factory=dict)  # entries of `turns`: train, name, tool_call_id
    form: Form = "text"


def is_image(part: Any) -> bool:
    """Say whether a part of a message is an image."""
    return not isinstance(part, str | Marked | Slot)


def has_image(message: Message) -> bool:
    """Say whether a part of a message is an image."""
    return any(map(is_image, message.parts))


def count_marks(parts: Sequence[Any], mark: str = PLACEHOLDER) -> int:
    """Return how often a mark, such as `<image>`, is in the texts of a message. Reasoning and tool calls do not count."""
    return sum(part.count(mark) for part in parts if isinstance(part, str))


def count_slots(parts: Sequence[Any]) -> int:
    """Return the number of a message's image parts that name no image."""
    return sum(isinstance(part, Slot) for part in parts)


def placed(messages: list[Message], images: Sequence[Any]) -> list[Message]:
    """Return the messages with the record's images in place of the placeholders, in order.

    In a record with image parts, the parts are the placeholders, and `<image>` in a text is text. This holds too for a list of
    text parts in a record without images. Everywhere else, `<image>` is a placeholder. A single image without a placeholder
    comes before the text of the first user message, as in LLaVA's reader. Messages that already contain images are returned
    unchanged. Raises Unfit if such messages come with more images or placeholders, or if the numbers of images and
    placeholders differ.
    """
    slots = sum(count_slots(message.parts) for message in messages)
    marks = sum(count_marks(message.parts) for message in messages if images or message.form == "text")
    has_parts = any(message.form == "image_parts" for message in messages)
    if any(map(has_image, messages)):
        if images or slots or (marks and not has_parts):
            raise Unfit("images_both_in_parts_and_beside")
        return messages
    if slots and slots + marks != len(images):  # if equal, some messages have image parts, and others have `<image>`
        marks = 0
    if slots + marks == 0 and len(images) == 1:
        first = next(number for number, message in enumerate(messages) if message.role == "user")
        return [_led(message, images) if number == first else message for number, message in enumerate(messages)]
    if slots + marks != len(images):
        raise Unfit("more_placeholders_than_images" if slots + marks > len(images) else "more_images_than_placeholders")
    left = iter(images)
    return [_filled(message, left, splits=marks > 0) for message in messages]


def _led(message: Message, images: Sequence[Any]) -> Message:
    return Message(message.role, [*images, *message.parts], message.own, message.form)


def _filled(message: Message, images: Iterator[Any], *, splits: bool) -> Message:
    parts = [one for part in message.parts for one in _shown(part, images, splits=splits)]
    return Message(message.role, parts, message.own, message.form)


def _shown(part: Any, images: Iterator[Any], *, splits: bool) -> list[Any]:
    """Return the image for a slot, and a text split at its placeholders, with the images in between.

    White space beside a placeholder in a text is removed.
    """
    if isinstance(part, Slot):
        return [next(images)]
    if not splits or not isinstance(part, str) or PLACEHOLDER not in part:
        return [part]
    first, *others = part.split(PLACEHOLDER)
    found: list[Any] = [first.rstrip()]
    for number, other in enumerate(others, 1):
        found += [next(images), other.strip() if number < len(others) else other.lstrip()]
    return found
