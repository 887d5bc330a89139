"""The content of a sample: texts, pictures and videos in order, and the role of each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from vlmdata.grounding.spans import Grounding
from vlmdata.images.augmentations import Operation


@dataclass(frozen=True)
class AugmentedPicture:
    """An encoded image, and the operations that are applied to its pixels. They do not change its size."""

    data: bytes
    operations: tuple[Operation, ...]


# An encoded image, with operations or without, or only its width and height while lengths are measured.
Picture = bytes | AugmentedPicture | tuple[int, int]


@dataclass(frozen=True)
class Video:
    """Two or more frames of a video, in the order of their times."""

    frames: tuple[Picture, ...]
    times: tuple[float, ...]  # of each frame, in seconds


Media = Picture | Video


@dataclass(frozen=True)
class BoxedImage:
    """An image of a sample with the value of `boxes` in the sample's JSON, which should be boxes in pixels of the image."""

    picture: Picture
    boxes: Any


class GroundedText(str):
    """A text in which words stand for boxes, in its stored form. `images` has the images by the number that spans use."""

    grounding: Grounding
    images: Mapping[int, BoxedImage]


class WrittenText(str):
    """A text that is clean already. It has the control tokens of boxes, which `Cleaner` would break in other texts."""


class Turn(TypedDict, total=False):
    """Properties of one position in a conversation.

    Properties of a whole message are stored with the first position of the message.
    """

    begins: bool  # a new message begins here, although its role is that of the message before
    kind: Literal["reasoning", "tool_call"]  # absent for plain text; a tool call is a JSON with `name` and `arguments`
    train: bool  # False: the message has no loss
    name: str  # the speaker's name, as in OpenAI's API
    tool_call_id: str  # the call that a tool's message answers, as in OpenAI's API


@dataclass(frozen=True)
class Document:
    """One sample in the form that all readers return. Each position is a text, a picture or a video, and has a role."""

    positions: list[str | Media]
    roles: list[str] | None  # user, assistant, system or tool, for each position; None: not a conversation
    turns: list[Turn | None] | None = None  # other properties of each position
    tools: list[Any] | None = None  # JSON schemas of the functions, for the chat template
    unseen_turns: int = 0  # questions with their answers that were left out, because the model cannot see their boxes
