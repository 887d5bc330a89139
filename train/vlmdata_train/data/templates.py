"""A tokenizer's chat template: how it writes a conversation, and where the answers are in its output.

`render.py` runs the template. `turn_markup.py` finds the text that the template writes around messages. `marks.py` puts marks
around answers, to find them in the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from vlmdata_train.data.marks import mark_whole, mark_within, marked_message, mask, unmark, unmask
from vlmdata_train.data.render import Message, Renderer
from vlmdata_train.data.turn_markup import TurnMarkup

_CLOSED = re.compile(r"\s*</think>")

Span = tuple[int, int]  # (start, end) of a text, in characters


class ChatTemplate:
    """The chat template of a tokenizer. If the tokenizer has none, only its special tokens are known."""

    def __init__(self, tokenizer: Any, image_token: str, video_token: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer, image_token, video_token)
        self._markup = TurnMarkup(self._renderer)

    @property
    def source(self) -> Any:
        """The template as Jinja source, or a dict of several sources by name, or None if there is no template."""
        return self._renderer.source

    @property
    def form(self) -> str | None:
        """The form in which the template accepts the content of a message; see `Renderer.form`."""
        return self._renderer.form

    @property
    def header(self) -> str:
        """The text that the template writes before the first question."""
        return self._markup.header

    @property
    def image_text(self) -> str:
        """The tokens that the template writes for an image; see `TurnMarkup.image_text`."""
        return self._markup.image_text

    @property
    def control(self) -> frozenset[str]:
        """The tokens that a text must not contain: special tokens, and the tokens that open or end turns."""
        return self._markup.control

    @property
    def turn_markers(self) -> frozenset[str]:
        """The tokens that open or end turns."""
        return self._markup.openers | self._markup.enders

    @property
    def stop_ids(self) -> list[int]:
        """The ids of the tokens that end an answer: the end-of-sequence token, and the last token of the assistant's turn."""
        return self._markup.stop_ids

    @property
    def ends_turns(self) -> bool:
        """Whether the template writes anything after an answer. A model learns from this text where to stop."""
        return bool(self._markup.endings)

    def render(self, messages: Sequence[Message], *, tools: list[Any] | None = None, add_generation_prompt: bool) -> str:
        """Return what the template writes for these messages.

        Raises ValueError if the template refuses the messages, usually because of the order of their roles. Raises RecipeError
        if there is no template, or if the template does not write the content of messages.
        """
        return self._renderer.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)

    def find_answers(
        self, messages: Sequence[Message], wanted: Collection[int], tools: list[Any] | None = None
    ) -> tuple[str, list[Span]]:
        """Return the conversation as the template writes it, and the span of each wanted answer in this text.

        `wanted` are indices of messages. A span includes the token that ends the turn. Raises ValueError if the template
        refuses the messages, or if it changes an answer so that the answer cannot be found.
        """
        plain = self.render(messages, tools=tools, add_generation_prompt=False)
        for find in (
            lambda: self._find_marked(plain, messages, wanted, tools, mark_whole),
            lambda: self._find_marked(plain, messages, wanted, tools, mark_within),
            lambda: self._find_masked(plain, messages, wanted, tools),
        ):
            if (spans := find()) is not None:
                return plain, spans
        reason = "has a chat template that changes or omits answers, so they cannot be found in its output"
        raise ValueError(self._renderer.named(reason))

    def _find_marked(
        self, plain: str, messages: Sequence[Message], wanted: Collection[int], tools: list[Any] | None,
        mark: Callable[[str, int], str],
    ) -> list[Span] | None:  # fmt: skip
        """Return the spans of the answers. They are found by the marks that `mark` puts around each answer.

        Return None if the marks change the output, or if the marks of an answer are missing.
        """
        # An answer that does not begin with its content is searched for after the previous message, so mark that message too.
        before = {n - 1 for n in wanted if messages[n].get("tool_calls") or not _begins_with_words(messages[n])}
        to_mark = set(wanted) | before
        marked = [marked_message(m, number, mark) if number in to_mark else m for number, m in enumerate(messages)]
        text, places = unmark(self.render(marked, tools=tools, add_generation_prompt=False))
        if text != plain or not places.keys() >= set(wanted):
            return None
        return [self._span(plain, number, messages[number], places) for number in sorted(wanted)]

    def _find_masked(
        self, plain: str, messages: Sequence[Message], wanted: Collection[int], tools: list[Any] | None
    ) -> list[Span] | None:
        """Return the spans of the answers. Each character of an answer is replaced by a mark to find the answer in the output.

        Return None if an answer is not found in this way. This method is for templates whose output depends on the
        length of an answer.
        """
        texts = {
            n: messages[n]["content"] for n in sorted(wanted) if not messages[n].keys() & {"reasoning_content", "tool_calls"}
        }
        masked = [{**m, "content": mask(texts[number])} if number in texts else m for number, m in enumerate(messages)]
        places = unmask(self.render(masked, tools=tools, add_generation_prompt=False), texts, plain)
        if places.keys() != set(wanted):
            return None
        return [(start, self._end(plain, messages[number], end)) for number, (start, end) in places.items()]

    def _span(self, plain: str, number: int, message: Message, places: Mapping[int, Span]) -> Span:
        """Return the span, in `plain`, of the answer `message`. `number` is the index of this message in the conversation.

        `places` maps the index of each marked message to the range of its marked text in `plain`.
        """
        first, last = places[number]
        start = first
        words = message["content"].strip()
        # Some templates omit the content of a message with tool calls.
        is_left_out = bool(message.get("tool_calls")) and not plain[
            first : first + len(message["content"])
        ].lstrip().startswith(words)
        if is_left_out or not _begins_with_words(message):
            before = places.get(number - 1, (0, 0))[1]
            start = self._start(plain, before if before <= first else 0, first)
        return start, self._end(plain, message, last)

    def _start(self, plain: str, before: int, mark: int) -> int:
        """Return the start, in `plain`, of an answer that begins with a thought or a tool call.

        The marks enclose only the content of the message, but the template may write other parts of the answer before the
        content, for example <think>. So the answer starts after the last text that opens a turn between `before` and `mark`.
        `before` is the end of the previous message, and `mark` is the start of the marked content. If no text opens a turn
        there, the answer starts at a <think> directly before `mark`, or at `mark`.
        """
        for openings in self._markup.openings:
            opened = [at + len(text) for text in openings if (at := plain.rfind(text, before, mark)) >= 0]
            if opened:
                return max(opened)
        words = plain[before:mark].rstrip()
        return before + len(words) - len("<think>") if words.endswith("<think>") else mark

    def _end(self, plain: str, message: Message, mark: int) -> int:
        """Return the offset in `plain` after the token that ends a turn.

        `mark` is the offset at which the marked text of the turn ends. If no token ends the turn, a turn with tool calls ends
        before the next turn, and any other turn ends at `mark` or after a `</think>` there.
        """
        ending = self._markup.ending
        if message.get("tool_calls"):  # the marks enclose only the name; the JSON continues after them
            for found in self._markup.added.finditer(plain, mark):
                if ended := ending.match(plain, found.start()):
                    return ended.end()
                if found[0] in self._markup.openers:
                    return found.start()
            return len(plain)
        if closed := _CLOSED.match(plain, mark):  # a thought without an answer after it
            mark = closed.end()
        ended = ending.match(plain, mark)
        return ended.end() if ended else mark


def _begins_with_words(message: Message) -> bool:
    """Return whether an answer begins with words of its content, not with a thought."""
    content = message["content"].lstrip()
    return bool(content) and not content.startswith("<think>") and not message.get("reasoning_content")
