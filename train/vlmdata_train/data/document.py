"""What a sample holds: texts and pictures in their order, and who says each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Picture = bytes | tuple[int, int]  # an encoded image, or where lengths are only measured its width and height


class Turn(TypedDict, total=False):
    """What is known of a position in a conversation. What belongs to a message stands at its first position."""

    begins: bool  # a message begins here, though the same role spoke before
    kind: Literal["reasoning", "tool_call"]  # of a text that is not plain; a call is JSON of a name and its arguments
    train: bool  # false for a message without a loss
    name: str  # of who speaks, as in OpenAI's form
    tool_call_id: str  # of the call that a tool answers, as in OpenAI's form


@dataclass(frozen=True)
class Document:
    """One sample, whatever it was: at each position a picture or a text, and who speaks there."""

    positions: list[str | Picture]
    roles: list[str] | None  # user, assistant, system, tool per position; None where nobody converses
    turns: list[Turn | None] | None = None  # what else is known of each position
    tools: list[Any] | None = None  # the functions on offer, JSON schemas, for the chat template
