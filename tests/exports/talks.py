"""Conversations for tests of exports: several images and texts in a message, reasoning, tools, a message without loss."""

import json

from tests.exporting.made import chat
from tests.sources.pictures import picture

A, B = picture(8, 6), picture(9, 7)
CALL = json.dumps({"name": "w", "arguments": {"city": "Bern", "at": [1, None]}})
TOOLS = [{"type": "function", "function": {"name": "w", "description": "d", "parameters": {"type": "object"}}}]
U, S, T, X = "user", "assistant", "system", "tool"

PLAIN = [
    chat(0, A, "What is it?", "A picture."),
    chat(1, "Be kind.", "Which\n\nis bigger?", A, B, "The second.\n", roles=[T, U, U, U, S]),
    chat(2, "No image", "at all", "Again?", " Yes. ", roles=[U, S, U, S]),
    chat(3, A, B, "one answer", "And?", A, "two", roles=[U, U, S, U, U, S]),
    chat(4, A, "Colour?", "Red.", roles=[U, U, S], id=7, origin={"a": [1, None]}),
]
TURNS = [
    chat(
        10,
        *("Weather?", CALL, "sun", "Sunny."),
        roles=[U, S, X, S],
        turns=[None, {"kind": "tool_call"}, {"begins": True}, None],
        tools=TOOLS,
    ),
    chat(11, A, "Why?", "because", "So.", roles=[U, U, S, S], turns=[None, None, {"kind": "reasoning"}, None]),
    chat(12, "a", "b", "c", "d", roles=[U, S, U, S], turns=[None, {"train": False}, {"name": "Ann"}, None]),
]
MIXED = [  # formats with `<image>` in the text cannot hold these
    chat(20, "a", "b", "c", roles=[U, U, S]),
    chat(21, "What does <image> mean?", "A tag.", roles=[U, S]),
    chat(22, "a", "look", CALL, roles=[U, S, S], turns=[None, None, {"kind": "tool_call"}], tools=TOOLS),
    chat(23, A, "a question without an answer", roles=[U, U]),
]
