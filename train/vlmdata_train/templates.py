"""A tokenizer's own chat template: how it takes messages, where an answer stands in what it writes, and what ends a turn.

Nothing here knows a model by its name. What a template does is seen by rendering small conversations, and an answer is
found by characters around it that no text may hold: Unicode noncharacters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from vlmdata.step import RecipeError

IMAGE_MARK = "\ufdd0"  # where an image stands in the content of a message
OPEN, CLOSE = "\ufdd1", "\ufdd2"  # around what an assistant says; the number of its message follows
MARKS = re.compile("[\ufdd0-\ufdef]")
_PLACES = re.compile("([\ufdd1\ufdd2])([\ufde0-\ufdef]+)")
_THOUGHT = re.compile(r"(\s*)(?:(<think>\s*)(.*?)(\s*</think>\s*))?(.*?)(\s*)", re.DOTALL)
_WORD, _ANSWER = "Qxq", "Axa"  # what the small conversations say
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
# Turn markers that are ordinary text for the tokenizer: Llama 2's and Mistral's [INST], ChatML's names that were never added.
_TEXT_MARKERS = re.compile(r"<\|[^\s<>]*\|>|\[/?[A-Z_]{3,}\]|<</?[A-Z]+>>")

Message = Mapping[str, Any]  # `role` and `content`, a text with IMAGE_MARKs; what else templates read, as transformers names it


class ChatTemplate:
    """The chat template of one tokenizer. It may be made for a tokenizer without one: then only special tokens are known."""

    def __init__(self, tokenizer: Any, image_token: str) -> None:
        self.tokenizer = tokenizer
        self.image_token = image_token
        self.source = tokenizer.chat_template
        added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        self._special = {name for name, token in added.items() if token.special} | set(tokenizer.all_special_tokens)
        self._added = _alternatives(name for name in added.keys() | self._special if name.strip())
        self._next = re.compile(rf"\s*({self._added.pattern})")

    @cached_property
    def _texts(self) -> Collection[str]:
        return [self.source] if isinstance(self.source, str) else list((self.source or {}).values())

    def mentions(self, *names: str) -> bool:
        """Say whether the template's source has one of these words."""
        return any(name in text for text in self._texts for name in names)

    def render(self, messages: Sequence[Message], *, tools: list[Any] | None = None, add_generation_prompt: bool) -> str:
        """Run the template. ValueError: it refuses these messages, for the order of their roles as a rule.

        RecipeError: there is none, or it shows no message.
        """
        if self.source is None:
            raise RecipeError(self._named("has no chat template: give one as `chat_template` in the recipe"))
        text = self._run([self._shown(message) for message in messages], tools, add_generation_prompt)
        if self.form is None:
            raise RecipeError(
                self._named("has a chat template that shows no message: give another one as `chat_template` in the recipe")
            )
        return text

    def answers(
        self, messages: Sequence[Message], wanted: Collection[int], tools: list[Any] | None = None
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the conversation as the template writes it, and where in it each wanted message's answer stands.

        `wanted` are indices of messages. An answer reaches to the end of the token that ends its turn. ValueError: the template
        refuses the messages, or rewrites an answer so that its place is unknown.
        """
        plain = self.render(messages, tools=tools, add_generation_prompt=False)
        for mark in (_mark_whole, _mark_within):
            marked = [_marked(m, number, mark) if number in wanted else m for number, m in enumerate(messages)]
            text, places = _unmark(self.render(marked, tools=tools, add_generation_prompt=False))
            if text == plain and places.keys() == set(wanted):
                return plain, [self._span(plain, messages[number], places[number]) for number in sorted(wanted)]
        raise ValueError(self._named("has a chat template that rewrites answers, or leaves them out: their place is unknown"))

    @cached_property
    def form(self) -> str | None:
        """How the template takes a content: as a `text`, as `parts` (a list of texts and images), as `both`, as `text_parts`.

        `text_parts`: a list of one text, in which the image token stands. None: it shows no content at all.
        """
        if self.source is None:
            return None
        takes_text = _WORD in self._try([_user(_WORD)])
        with_image = self._try([_user([{"type": "image"}, {"type": "text", "text": _WORD}])])
        takes_parts = _WORD in with_image and with_image.count(self.image_token) == 1
        if takes_text or takes_parts:
            return "both" if takes_text and takes_parts else "text" if takes_text else "parts"
        return "text_parts" if _WORD in self._try([_user([{"type": "text", "text": _WORD}])]) else None

    @cached_property
    def image_text(self) -> str:
        """What the template writes for an image, the marks that some models have around it included, without white space."""
        if self.form not in ("parts", "both"):
            return self.image_token
        with_image = self._try([_user([{"type": "image"}, {"type": "text", "text": _WORD}])])
        header = self._try([_user([{"type": "text", "text": _WORD}])]).partition(_WORD)[0]
        written = with_image[len(header) :].partition(_WORD)[0].strip() if with_image.startswith(header) else ""
        return written if self.image_token in written else self.image_token

    @cached_property
    def control(self) -> frozenset[str]:
        """The tokens that a text must not spell: special ones, and those that the template itself opens and ends turns with."""
        words = _TEXT_MARKERS.findall(" ".join([self._header, self._between, self._opening, self._tail]))
        return frozenset({*self._special, *self._openers, *self._enders, *words})

    @cached_property
    def turn_markers(self) -> frozenset[str]:
        """The tokens that open and end turns."""
        return self._openers | self._enders

    @cached_property
    def stop_ids(self) -> list[int]:
        """The ids at which an answer has ended: the end-of-sequence token and the one that ends the assistant's turn."""
        vocabulary = self.tokenizer.get_vocab()
        ids = {vocabulary[name] for name in self._enders if name in vocabulary}
        return sorted(ids | ({self.tokenizer.eos_token_id} - {None}))

    # What the small conversations show

    @cached_property
    def _header(self) -> str:
        """What stands before a first question."""
        return self._probe([("user", _WORD)]).partition(_WORD)[0]

    @cached_property
    def _between(self) -> str:
        """What stands between a question and its answer, without a thought that the answer may begin with."""
        answered = self._probe([("user", _WORD), ("assistant", _ANSWER)])
        return answered.partition(_WORD)[2].partition(_ANSWER)[0].partition("<think>")[0]

    @cached_property
    def _opening(self) -> str:
        """What opens an assistant's turn, as far as the template can be asked for it alone."""
        without, opened = self._probe([("user", _WORD)]), self._probe([("user", _WORD)], add_generation_prompt=True)
        alone = opened.removeprefix(without) if opened.startswith(without) else ""
        return alone.partition("<think>")[0] or self._between

    @cached_property
    def _tail(self) -> str:
        """What follows an assistant's words where nothing is said after them."""
        return self._probe([("user", _WORD), ("assistant", _ANSWER)]).partition(_ANSWER)[2]

    @cached_property
    def _openers(self) -> frozenset[str]:
        headers = [self._header, self._between, self._opening]
        headers += [self._probe([(role, _WORD)]).partition(_WORD)[0] for role in ("system", "tool")]
        return (
            frozenset(name for header in headers for name in self._added.findall(header)) - self._enders - {"<tool_response>"}
        )

    @cached_property
    def _enders(self) -> frozenset[str]:
        """The token that ends an assistant's turn; none where the template ends it with plain text or nothing."""
        found = self._added.match(self._tail.lstrip())
        return frozenset([found[0]]) if found else frozenset()

    def _probe(self, said: Sequence[tuple[str, str]], *, add_generation_prompt: bool = False) -> str:
        if self.form is None:
            return ""
        messages = [self._shown({"role": role, "content": text}) for role, text in said]
        return self._try(messages, add_generation_prompt)

    def _try(self, shown: list[dict[str, Any]], add_generation_prompt: bool = False) -> str:
        try:
            return self._run(shown, None, add_generation_prompt)
        except ValueError:
            return ""

    def _run(self, shown: list[dict[str, Any]], tools: list[Any] | None, add_generation_prompt: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                shown, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError, KeyError, AttributeError, IndexError, ValueError) as error:  # a stranger's program
            raise ValueError(f"the chat template refuses it: {error}") from None

    # Messages as templates want them

    def _shown(self, message: Message) -> dict[str, Any]:
        """Return a message in the form that this template takes. ValueError: it has no place for what is said."""
        shown = {name: value for name, value in message.items() if name not in ("train", "reasoning_content", "tool_calls")}
        content, reasoning, calls = message["content"], message.get("reasoning_content"), message.get("tool_calls")
        if reasoning and self.mentions(*_REASONING_FIELDS):
            shown["reasoning_content"] = reasoning
        elif reasoning:  # in the form that models without a field of their own learn it in
            content = f"<think>\n{reasoning}\n</think>\n\n{content}"
        if calls:
            if not self.mentions("tool_calls"):
                raise ValueError("the chat template refuses it: it has no place for tool calls")
            shown["tool_calls"] = [_call(call) for call in calls]
        if message["role"] == "tool" and self.mentions("observation") and not self.mentions("'tool'", '"tool"'):
            shown["role"] = "observation"
        shown["content"] = self._content(content)
        return shown

    def _content(self, content: str) -> str | list[dict[str, str]]:
        has_image = IMAGE_MARK in content
        if self.form == "parts" or (self.form == "both" and has_image):
            return _parts(content)
        text = content.replace(IMAGE_MARK, self.image_token)
        return [{"type": "text", "text": text}] if self.form == "text_parts" else text

    # Where an answer begins and ends

    def _span(self, plain: str, message: Message, marks: tuple[int, int]) -> tuple[int, int]:
        return self._start(plain, message, marks[0]), self._end(plain, message, marks[1])

    def _start(self, plain: str, message: Message, mark: int) -> int:
        """Return where an answer begins whose first marked words stand at `mark`: also with its thought, or its call's name."""
        content = message["content"].lstrip()
        if content and not content.startswith("<think>") and not message.get("reasoning_content"):
            return mark
        opened = plain.rfind(self._opening, 0, mark) if self._opening else -1
        if opened >= 0:
            return opened + len(self._opening)
        before = plain[:mark].rstrip()
        return len(before) - len("<think>") if before.endswith("<think>") else mark

    def _end(self, plain: str, message: Message, mark: int) -> int:
        """Return where a turn ends whose last marked words end at `mark`: behind its end token, before what opens the next."""
        if message.get("tool_calls"):  # whose JSON goes on after the name
            for found in self._added.finditer(plain, mark):
                if self._ends(found[0]):
                    return found.end()
                if found[0] in self._openers:
                    return found.start()
            return len(plain)
        end = mark
        while (after := self._next.match(plain, end)) and (self._ends(after[1]) or after[1] not in self._openers):
            end = after.end()
            if after[1] in self.control:
                return end
        if end > mark:
            return end
        tail = self._tail
        same = next((n for n in range(len(tail)) if plain[mark + n : mark + n + 1] != tail[n]), len(tail))
        shared = tail[:same]
        opener = next((found.start() for found in self._added.finditer(shared)), len(shared))
        shared = shared[:opener]
        return mark + len(shared.rstrip() or shared)

    def _ends(self, name: str) -> bool:
        return name in self._enders or name == self.tokenizer.eos_token

    def _named(self, says: str) -> str:
        return f"the tokenizer {self.tokenizer.name_or_path or type(self.tokenizer).__name__} {says}"


def _alternatives(names: Any) -> re.Pattern[str]:
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call in OpenAI's form with its arguments as an object, as transformers documents it."""
    named = {"id": call["id"]} if call.get("id") is not None else {}
    return {**named, "type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}


def _parts(content: str) -> list[dict[str, str]]:
    """Split a content at its images; the line end that joins a text to an image is ours and goes."""
    pieces = content.split(IMAGE_MARK)
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(pieces):
        if number > 0:
            parts.append({"type": "image"})
            piece = piece.removeprefix("\n")
        if number < len(pieces) - 1:
            piece = piece.removesuffix("\n")
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts or [{"type": "text", "text": ""}]


def _mark(text: str, number: int) -> str:
    if not text:
        return text
    digits = "".join(chr(0xFDE0 + int(digit, 16)) for digit in f"{number:x}")
    return f"{OPEN}{digits}{text}{CLOSE}{digits}"


def _mark_whole(text: str, number: int) -> str:
    """Mark a text from its first character to its last."""
    return _mark(text, number)


def _mark_within(text: str, number: int) -> str:
    """Mark a text inside its outer white space, and inside a thought's tags: templates take both away or write them anew."""
    found = _THOUGHT.fullmatch(text)
    assert found is not None, "any text fits"
    lead, opened, thought, closed, words, trail = (part or "" for part in found.groups())
    return lead + opened + _mark(thought, number) + closed + _mark(words, number) + trail


def _marked(message: Message, number: int, mark: Any) -> dict[str, Any]:
    marked = {**message, "content": mark(message["content"], number)}
    if message.get("reasoning_content"):
        marked["reasoning_content"] = mark(message["reasoning_content"], number)
    if message.get("tool_calls"):
        marked["tool_calls"] = [{**call, "name": _mark(call["name"], number)} for call in message["tool_calls"]]
    return marked


def _unmark(marked: str) -> tuple[str, dict[int, tuple[int, int]]]:
    """Take the marks out: the text, and of each number where its first mark opens and its last one closes."""
    pieces: list[str] = []
    opened: dict[int, int] = {}
    closed: dict[int, int] = {}
    length = at = 0
    for found in _PLACES.finditer(marked):
        pieces.append(marked[at : found.start()])
        length += found.start() - at
        at = found.end()
        number = int("".join(f"{ord(digit) - 0xFDE0:x}" for digit in found[2]), 16)
        if found[1] == OPEN:
            opened.setdefault(number, length)
        else:
            closed[number] = length
    places = {number: (start, closed[number]) for number, start in opened.items() if closed.get(number, -1) >= start}
    return "".join([*pieces, marked[at:]]), places
