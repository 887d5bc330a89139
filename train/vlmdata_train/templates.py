"""A tokenizer's own chat template: how it takes messages, where an answer stands in what it writes, and what ends a turn.

Nothing here knows a model by its name. What a template does is seen by rendering small conversations, and an answer is
found by marks around it (`marks.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from vlmdata.step import RecipeError
from vlmdata_train.marks import IMAGE_MARK, mark_whole, mark_within, marked_message, mask, unmark, unmask
from vlmdata_train.tool_calls import shown_call, with_short_ids

_WORD, _ANSWER, _MORE = "Qxq", "Axa", "Mxm"  # what the small conversations say
_ID = "c00000000"  # of a call, as `with_short_ids` gives them
_CLOSED = re.compile(r"\s*</think>")
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
        self._added = any_of(name for name in added.keys() | self._special if name.strip())
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
        if any(message.get("tool_calls") for message in messages) and self._wants_short_ids:
            messages = with_short_ids(messages)
        text = self._run([self._shown(message) for message in messages], tools, add_generation_prompt)
        if self.form is None:
            raise RecipeError(
                self._named("has a chat template that shows no message: give another one as `chat_template` in the recipe")
            )
        return text

    def find_answers(
        self, messages: Sequence[Message], wanted: Collection[int], tools: list[Any] | None = None
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the conversation as the template writes it, and where in it each wanted message's answer stands.

        `wanted` are indices of messages. An answer reaches to the end of the token that ends its turn. ValueError: the template
        refuses the messages, or rewrites an answer so that its place is unknown.
        """
        plain = self.render(messages, tools=tools, add_generation_prompt=False)
        # What stands before a message bounds where it begins, if its own first words are not in its content.
        looked_for = set(wanted) | {
            n - 1 for n in wanted if messages[n].get("tool_calls") or not _begins_with_words(messages[n])
        }
        for mark in (mark_whole, mark_within):
            marked = [marked_message(m, number, mark) if number in looked_for else m for number, m in enumerate(messages)]
            text, places = unmark(self.render(marked, tools=tools, add_generation_prompt=False))
            if text == plain and places.keys() >= set(wanted):
                return plain, [self._span(plain, number, messages[number], places) for number in sorted(wanted)]
        # A template that looks at how long an answer is shows where it stands if as many marks stand in for it.
        said = {
            n: messages[n]["content"] for n in sorted(wanted) if not messages[n].keys() & {"reasoning_content", "tool_calls"}
        }
        masked = [{**m, "content": mask(said[number])} if number in said else m for number, m in enumerate(messages)]
        places = unmask(self.render(masked, tools=tools, add_generation_prompt=False), said, plain)
        if places.keys() == set(wanted):
            return plain, [(start, self._end(plain, messages[number], end)) for number, (start, end) in places.items()]
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
        """What the template writes for an image: its token, and the tokens that some models have around it.

        Without white space, and without words as "Picture 1:".
        """
        if self.form not in ("parts", "both"):
            return self.image_token
        with_image = self._try([_user([{"type": "image"}, {"type": "text", "text": _WORD}])])
        header = self._try([_user([{"type": "text", "text": _WORD}])]).partition(_WORD)[0]
        written = with_image[len(header) :].partition(_WORD)[0] if with_image.startswith(header) else ""
        tokens = list(self._added.finditer(written))
        return written[tokens[0].start() : tokens[-1].end()] if self.image_token in written else self.image_token

    @cached_property
    def control(self) -> frozenset[str]:
        """The tokens that a text must not spell: special ones, and those that the template itself opens and ends turns with."""
        words = _TEXT_MARKERS.findall(" ".join([*self._headers, self._between, self._opening, self._tail]))
        return frozenset({*self._special, *self._openers, *self._enders, *words})

    @cached_property
    def turn_markers(self) -> frozenset[str]:
        """The tokens that open and end turns."""
        return self._openers | self._enders

    @cached_property
    def stop_ids(self) -> list[int]:
        """The ids at which an answer has ended: the end-of-sequence token and the one that ends the assistant's turn."""
        vocabulary = self.tokenizer.get_vocab()
        last = [name for ending in self._endings for name in self._added.findall(ending)[-1:]]
        ids = {vocabulary[name] for name in last if name in vocabulary}
        return sorted(ids | ({self.tokenizer.eos_token_id} - {None}))

    @property
    def ends_turns(self) -> bool:
        """Whether anything stands behind an answer, from which a model learns to stop."""
        return bool(self._endings)

    # What the small conversations show

    @cached_property
    def header(self) -> str:
        """What stands before a first question."""
        return self._probe(_user(_WORD)).partition(_WORD)[0]

    @cached_property
    def _between(self) -> str:
        """What stands between a question and its answer, without a thought that the answer may begin with."""
        answered = self._probe(_user(_WORD), _answer(_ANSWER))
        return answered.partition(_WORD)[2].partition(_ANSWER)[0].partition("<think>")[0]

    @cached_property
    def _opening(self) -> str:
        """What opens an assistant's turn, as far as the template can be asked for it alone."""
        without, opened = self._probe(_user(_WORD)), self._probe(_user(_WORD), add_generation_prompt=True)
        alone = opened.removeprefix(without) if opened.startswith(without) else ""
        return alone.partition("<think>")[0] or self._between

    @cached_property
    def _tail(self) -> str:
        """What follows an assistant's words where nothing is said after them."""
        return self._probe(_user(_WORD), _answer(_ANSWER)).partition(_ANSWER)[2]

    @cached_property
    def _headers(self) -> list[str]:
        """What stands before a first question, before and after instructions, and before what a tool says."""
        led = self._probe({"role": "system", "content": _MORE}, _user(_WORD)).partition(_WORD)[0]
        alone = [self._probe({"role": role, "content": _WORD}).partition(_WORD)[0] for role in ("system", "tool")]
        return [self.header, led, *alone]

    @cached_property
    def _openers(self) -> frozenset[str]:
        written = self._added.findall("\n".join([*self._headers, self._between, self._opening]))
        # A word or a number is no marker, though it was added to the vocabulary and stands in a header.
        return frozenset(name for name in written if not name.isalnum()) - self._enders - {"<tool_response>"}

    @cached_property
    def _openings(self) -> list[list[str]]:
        """What may stand before an answer whose first words are a thought or a call: what the template opens answers with.

        Or else the last token after a question, or after what a tool has said.
        """
        called = {**_answer(""), "tool_calls": [{"id": _ID, "name": _ANSWER, "arguments": {}}]}
        tool_message = {"role": "tool", "content": _MORE, "tool_call_id": _ID}
        after = self._probe(_user(_WORD), called, tool_message, add_generation_prompt=True).partition(_MORE)[2]
        ends = []
        for text in (self._between, after):
            tokens = [found.start() for found in self._added.finditer(text)]
            ends.append(text[tokens[-1] :] if tokens else text)
        return [[one for text in texts for one in (text, text.rstrip()) if one.strip()] for texts in ([self._opening], ends)]

    @cached_property
    def _endings(self) -> list[str]:
        """What ends an assistant's turn: what follows its words inside of a conversation and at its end alike.

        Where no token does, the one that stands at either of the two places.
        """
        after = self._probe(_user(_WORD), _answer(_ANSWER), _user(_MORE)).partition(_ANSWER)[2].partition(_MORE)[0]
        first, follows = self._next.match(self._tail), self._next.match(after)
        shared = _shared(self._tail, after) if after else first[0] if first else self._tail
        for found in [*self._added.finditer(self._tail), *self._added.finditer(after)]:
            if found.start() < len(shared) < found.end():
                shared = shared[: found.start()]
        ends = [found.end() for found in self._added.finditer(shared)]
        if ends:
            return [shared[: ends[-1]]]
        tokens = [first[1]] if first else []
        # A token before questions and answers alike parts the turns, unless the first one begins with it too.
        begin = self.header.removeprefix(self.tokenizer.bos_token or "").lstrip()
        if follows and self._between.lstrip().startswith(follows[1]) and not begin.startswith(follows[1]):
            tokens.append(follows[1])
        return [*tokens, shared] if shared else tokens

    @cached_property
    def _ending(self) -> re.Pattern[str]:
        texts = [*self._endings, self.tokenizer.eos_token or ""]
        marked = [r"\s*" + re.escape(text.strip()) for text in texts if self._added.search(text)]
        worded = [re.escape(text.rstrip() or text) for text in texts if text and not self._added.search(text)]
        return re.compile("|".join([*marked, *worded]) or r"(?!)")

    @cached_property
    def _enders(self) -> frozenset[str]:
        """The tokens that end an assistant's turn; none where the template ends it with plain text or nothing."""
        return frozenset(name for ending in self._endings for name in self._added.findall(ending))

    @cached_property
    def _shows_thoughts(self) -> bool:
        """Whether it writes the thought of an answer that stands in a field of its own."""
        shown = {**_answer(self._content(_ANSWER)), "reasoning_content": _MORE}
        return self.form is not None and _MORE in self._try([_user(self._content(_WORD)), shown])

    @cached_property
    def _wants_text(self) -> bool:
        """Whether it takes the arguments of a call as text, which it writes as it is, and not as an object."""
        return not self._takes_call({}) and self._takes_call("{}")

    @cached_property
    def _wants_short_ids(self) -> bool:
        """Whether it takes only ids of calls that have nine letters and digits."""
        arguments = "{}" if self._wants_text else {}
        return not self._takes_call(arguments, "call_1") and self._takes_call(arguments)

    def _takes_call(self, arguments: Any, name: str = _ID) -> bool:
        calls = [shown_call({"id": name, "name": _MORE, "arguments": arguments})]
        return _MORE in self._try([_user(self._content(_WORD)), {**_answer(self._content("")), "tool_calls": calls}])

    def _probe(self, *messages: Message, add_generation_prompt: bool = False) -> str:
        if self.form is None:
            return ""
        try:
            return self._try([self._shown(message) for message in messages], add_generation_prompt)
        except ValueError:
            return ""

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
        except (TemplateError, TypeError, LookupError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            # a stranger's program
            raise ValueError(f"the chat template refuses it: {error}") from None

    # Messages as templates want them

    def _shown(self, message: Message) -> dict[str, Any]:
        """Return a message in the form that this template takes. ValueError: it has no place for what is said."""
        shown = {name: value for name, value in message.items() if name not in ("train", "reasoning_content", "tool_calls")}
        content, reasoning, calls = message["content"], message.get("reasoning_content"), message.get("tool_calls")
        if reasoning and self._shows_thoughts:
            shown["reasoning_content"] = reasoning
        elif reasoning:  # in the form that models without a field of their own learn it in
            content = f"<think>\n{reasoning}\n</think>\n\n{content}"
        if calls:
            if not self.mentions("tool_calls"):
                raise ValueError("the chat template refuses it: it has no place for tool calls")
            shown["tool_calls"] = [shown_call(call, as_text=self._wants_text) for call in calls]
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

    def _span(self, plain: str, number: int, message: Message, places: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
        first, last = places[number]
        start = first
        words = message["content"].strip()
        # Some templates leave out what is said beside a call.
        is_left_out = bool(message.get("tool_calls")) and not plain[
            first : first + len(message["content"])
        ].lstrip().startswith(words)
        if is_left_out or not _begins_with_words(message):
            before = places.get(number - 1, (0, 0))[1]
            start = self._start(plain, before if before <= first else 0, first)
        return start, self._end(plain, message, last)

    def _start(self, plain: str, before: int, mark: int) -> int:
        """Return where an answer begins, a thought or a call, whose first marked words stand at `mark`: after what opens it."""
        for openings in self._openings:
            opened = [at + len(text) for text in openings if (at := plain.rfind(text, before, mark)) >= 0]
            if opened:
                return max(opened)
        words = plain[before:mark].rstrip()
        return before + len(words) - len("<think>") if words.endswith("<think>") else mark

    def _end(self, plain: str, message: Message, mark: int) -> int:
        """Return where a turn ends whose last marked words end at `mark`: behind its end token, before what opens the next."""
        if message.get("tool_calls"):  # whose JSON goes on after the name
            for found in self._added.finditer(plain, mark):
                if ended := self._ending.match(plain, found.start()):
                    return ended.end()
                if found[0] in self._openers:
                    return found.start()
            return len(plain)
        if closed := _CLOSED.match(plain, mark):  # a thought without an answer behind it
            mark = closed.end()
        ended = self._ending.match(plain, mark)
        return ended.end() if ended else mark

    def _named(self, says: str) -> str:
        return f"the tokenizer {self.tokenizer.name_or_path or type(self.tokenizer).__name__} {says}"


def _shared(one: str, other: str) -> str:
    """Return the beginning that two texts share."""
    return one[: next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))]


def any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for any of these names, a longer one before its beginning; for nothing where there are none."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _answer(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


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


def _begins_with_words(message: Message) -> bool:
    content = message["content"].lstrip()
    return bool(content) and not content.startswith("<think>") and not message.get("reasoning_content")
