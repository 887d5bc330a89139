"""The content of a sample: texts and pictures in order, and who says each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Picture = bytes | tuple[int, int]  # an encoded image, or only its width and height while lengths are measured


class Turn(TypedDict, total=False):
    """Properties of a position in a conversation. Those of a message are at its first position."""

    begins: bool  # a new message begins here although the role is the same
    kind: Literal["reasoning", "tool_call"]  # of a text that is not plain; a call is JSON of a name and its arguments
    train: bool  # false for a message without a loss
    name: str  # of the speaker, as in OpenAI's API
    tool_call_id: str  # of the call that a tool answers, as in OpenAI's API


@dataclass(frozen=True)
class Document:
    """One sample in a common form: a picture or a text at each position, and its speaker."""

    positions: list[str | Picture]
    roles: list[str] | None  # user, assistant, system or tool, for each position; None without a conversation
    turns: list[Turn | None] | None = None  # other properties of each position
    tools: list[Any] | None = None  # JSON schemas of the functions, for the chat template
