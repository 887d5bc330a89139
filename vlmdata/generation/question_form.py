"""Reads questions and answers that a model wrote in a fixed form, with a state machine over lines.

    Question:
    What is the dog doing?
    ===
    Answer:
    It sleeps on the sofa.
    ===

The last separator may be missing. Text may begin behind `Question:` and `Answer:`. Everything else is not in the form. An
answer that begins with `{` is read as JSON: {"turns": [{"question": "...", "answer": "..."}]}.
"""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

from vlmdata.readers.strings import clean

QUESTION, ANSWER, SEPARATOR = "Question:", "Answer:", "==="
_SEPARATOR = re.compile("={3,}")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff]")
Fault = Literal["bad_form", "uneven", "empty", "length"]


class Turn(NamedTuple):
    """A question on one line, and its answer, which may have paragraphs."""

    question: str
    answer: str


def read_turns(text: str, *, is_cut: bool = False) -> tuple[list[Turn], Fault | None]:
    """Return the turns of a text, and what is wrong with it or None.

    A text with a fault has no turns. The exception is `length`: if `is_cut`, the end of the text is missing, so its last
    turn is left out, and the turns before it are returned.
    """
    text = cleaned_lines(text)
    if text.startswith("{"):
        return ([], "length") if is_cut else _from_json(text)
    reader = _Reader()
    lines = text.split("\n")
    if is_cut and not _SEPARATOR.fullmatch(lines[-1].strip()):
        lines.pop()  # it may be a part of a mark
    for line in lines:
        if fault := reader.read(line.strip()):
            return [], fault
    if is_cut:
        return reader.turns, "length"
    fault = reader.end()
    return ([], fault) if fault else (reader.turns, None)


class _Reader:
    """The state of the machine: it is at the start, in a question, behind it, in an answer or behind it."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._state = "start"
        self._question = ""
        self._lines: list[str] = []

    def read(self, line: str) -> Fault | None:
        """Read a line, and return what is wrong with it or None."""
        is_text = self._state in ("question", "answer")
        if _SEPARATOR.fullmatch(line):
            return self._separated() if is_text else "bad_form"
        mark = next((one for one in (QUESTION, ANSWER) if line.startswith(one)), "")
        if is_text:
            self._lines.append(line)
            return "bad_form" if mark else None
        if not mark:
            return "bad_form" if line else None
        wanted = ANSWER if self._state == "behind_question" else QUESTION
        if mark != wanted:
            return "uneven"
        self._state = "answer" if mark == ANSWER else "question"
        self._lines = [line.removeprefix(mark).strip()]
        return None

    def _separated(self) -> Fault | None:
        text = paragraphs(self._lines)
        if not has_letters(text):
            return "empty"
        if self._state == "question":
            self._question, self._state = " ".join(text.split()), "behind_question"
        else:
            self.turns.append(Turn(self._question, text))
            self._state = "behind_answer"
        return None

    def end(self) -> Fault | None:
        """End the text, and return what is wrong with it or None."""
        if self._state == "answer":
            return self._separated()
        return {"start": "bad_form", "behind_answer": None}.get(self._state, "uneven")


def _from_json(text: str) -> tuple[list[Turn], Fault | None]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return [], "bad_form"
    listed = tree.get("turns")
    if not isinstance(listed, list) or not listed:
        return [], "bad_form"
    turns = []
    for one in listed:
        if not isinstance(one, dict) or not all(isinstance(one.get(name), str) for name in Turn._fields):
            return [], "bad_form"
        question, answer = (paragraphs(cleaned_lines(one[name]).split("\n")) for name in Turn._fields)
        if not (has_letters(question) and has_letters(answer)):
            return [], "empty"
        turns.append(Turn(" ".join(question.split()), answer))
    return turns, None


def cleaned_lines(text: str) -> str:
    """Return a text without control characters, characters of no width, and white space at both ends. Line ends stay."""
    text = clean(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _CONTROLS.sub("", text).strip()


def paragraphs(lines: list[str]) -> str:
    """Return lines as a text without white space at the ends of lines and with at most one empty line between two others."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(" ".join(line.split()) for line in lines)).strip()


def has_letters(text: str) -> bool:
    """Return whether a text has a letter or a digit."""
    return any(map(str.isalnum, text))


def plain_answer(text: str) -> tuple[str, Fault | None]:
    """Return a text that is only an answer, and what is wrong with it or None: it has marks of the form, or no letter."""
    text = cleaned_lines(text)
    if text.startswith("{"):
        turns, fault = _from_json(text)
        return ("", fault) if fault else (turns[0].answer, None) if len(turns) == 1 else ("", "bad_form")
    lines = [line.strip() for line in text.split("\n")]
    if any(_SEPARATOR.fullmatch(line) or line.startswith((QUESTION, ANSWER)) for line in lines):
        return "", "bad_form"
    answer = paragraphs(lines)
    return (answer, None) if has_letters(answer) else ("", "empty")
