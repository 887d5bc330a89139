"""The content of a sample: texts and pictures in order, and the speaker of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Picture = bytes | tuple[int, int]  # an encoded image, or only its width and height while lengths are measured


class Turn(TypedDict, total=False):
    """Properties of one position in a conversation. The properties of a whole message are at the message's first position."""

    begins: bool  # a new message begins here although the role is the same
    kind: Literal["reasoning", "tool_call"]  # set if the text is not plain; a call is a JSON with `name` and `arguments`
    train: bool  # False: the message has no loss
    name: str  # the speaker's name, as in OpenAI's API
    tool_call_id: str  # the call that a tool's message answers, as in OpenAI's API


@dataclass(frozen=True)
class Document:
    """One sample in the form that all readers return: a picture or a text at each position, and its speaker."""

    positions: list[str | Picture]
    roles: list[str] | None  # user, assistant, system or tool, for each position; None without a conversation
    turns: list[Turn | None] | None = None  # other properties of each position
    tools: list[Any] | None = None  # JSON schemas of the functions, for the chat template
