"""A sample becomes tokens: which text the model sees, where the images stand, and which tokens have a loss.

A conversation is tokenized as a whole, as its tokenizer's own chat template writes it: so the ids are those that the model
gets when it is served. `templates.py` finds the answers in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.step import RecipeError
from vlmdata_train.documents import Document, Picture
from vlmdata_train.loss import IGNORE
from vlmdata_train.templates import IMAGE_MARK, MARKS, ChatTemplate, Message

_NOTHING = re.compile("[\\s\ufdd0\u00ad\u200b-\u200f\u2060\ufeff]+")  # images, white space and characters without width


@dataclass(frozen=True)
class Prompt:
    """Tokens of one sample. `image_starts[i]` is where image i begins, `image_counts[i]` how many tokens it takes."""

    input_ids: list[int]
    labels: list[int]  # aligned with input_ids; IGNORE where there is no loss
    images: list[Picture]
    image_starts: list[int]
    image_counts: list[int]

    def answers(self) -> int:
        """Return how many tokens have a loss."""
        return sum(label != IGNORE for label in self.labels)


class Prompter:
    """Turns documents into prompts for one tokenizer. `tokens_of(picture)` tells how many tokens an image takes.

    `trusted` are tokens that the data may write; `last_only` leaves the loss to the last answer of a conversation. RecipeError:
    a token that cannot be trusted.
    """

    def __init__(
        self, tokenizer: Any, image_token_id: int, tokens_of: Callable[[Picture], int], *, trusted: Collection[str] = (),
        last_only: bool = False,
    ) -> None:  # fmt: skip
        if not tokenizer.is_fast:
            raise ValueError(f"{tokenizer.name_or_path}: a fast tokenizer is needed: it knows where its tokens lie in a text")
        self.tokenizer = tokenizer
        self.image_token_id = image_token_id
        self.image_token: str = tokenizer.convert_ids_to_tokens(image_token_id)
        self.tokens_of = tokens_of
        self.trusted, self.last_only = frozenset(trusted), last_only
        self.pad_id: int = tokenizer.pad_token_id
        self._begin = _written_before(tokenizer)
        self._names = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        self._template = ChatTemplate(tokenizer, self.image_token)
        self._patterns: tuple[frozenset[str], re.Pattern[str]] | None = None
        for name in sorted(self.trusted):
            _check_trusted(name, self.template, self.image_token)

    @property
    def template(self) -> ChatTemplate:
        """The tokenizer's chat template as it now is."""
        if self._template.source != self.tokenizer.chat_template:
            self._template = ChatTemplate(self.tokenizer, self.image_token)
        return self._template

    def plain(self, document: Document) -> Prompt:
        """Stage 1 of LLaVA, its prompt "plain": the image's tokens, then the caption, which has the loss, and the end."""
        images = self.template.image_text * len(_images(document))
        caption = " ".join(self.clean(p).strip() for p in document.positions if isinstance(p, str)) + self._end()
        return self._encode(images + caption, [(len(images), len(images) + len(caption))], _images(document))

    def page(self, document: Document) -> Prompt:
        """An interleaved page: paragraphs and images in their order, parted by empty lines; every text has a loss.

        Images without a text between them stand side by side.
        """
        said = [self.clean(p) if isinstance(p, str) else IMAGE_MARK for p in document.positions]
        text = "".join(_joined(said, "\n\n")).replace(IMAGE_MARK, self.template.image_text) + self._end()
        return self._encode(text, [(0, len(text))], _images(document))

    def chat(self, document: Document) -> Prompt:
        """A conversation through the tokenizer's chat template; the loss is on what the assistant says and its end.

        A message that says nothing, or is marked as not trained, has none.
        """
        messages = self.messages(document)
        said = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        asked = said[-1:] if self.last_only else said
        wanted = [number for number in asked if messages[number].get("train", True) and _says_something(messages[number])]
        text, answers = self.template.answers(messages, wanted, self._tools(document))
        return self._encode(text, answers, _images(document))

    def question(self, messages: Sequence[Message], images: list[Picture], *, tools: list[Any] | None = None) -> Prompt:
        """The prompt that asks for the next answer: messages whose contents hold IMAGE_MARK where an image stands."""
        return self._encode(self.template.render(messages, tools=tools, add_generation_prompt=True), [], images)

    def beginning(self, images: list[Picture], text: str) -> Prompt:
        """Images and the beginning of a caption, for a model to go on with."""
        return self._encode(self.template.image_text * len(images) + self.clean(text), [], images)

    def before_answer(self, document: Document) -> tuple[Prompt, str]:
        """Return the prompt up to the last answer, and that answer: what evaluation generates from and compares with."""
        if document.roles is None:
            text = " ".join(p.strip() for p in document.positions if isinstance(p, str))
            return self.beginning(_images(document), ""), text
        messages = self.messages(document)
        last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
        seen = sum(m["content"].count(IMAGE_MARK) for m in messages[:last])
        prompt = self.question(messages[:last], _images(document)[:seen], tools=self._tools(document))
        return prompt, messages[last]["content"]

    def messages(self, document: Document) -> list[dict[str, Any]]:
        """Join neighbouring positions of one role into one message; an image stands on its own line beside text."""
        assert document.roles is not None
        messages: list[dict[str, Any]] = []
        turns = document.turns or [None] * len(document.positions)
        for position, role, turn in zip(document.positions, document.roles, turns, strict=True):
            facts = dict(turn or {})
            kind, begins = facts.pop("kind", None), facts.pop("begins", False)
            if not messages or messages[-1]["role"] != role or begins:
                messages.append({"role": role, "content": "", **facts})
            self._add(messages[-1], position, kind)
        for message in messages:
            message["content"] = "".join(_joined(message.pop("said", []), "\n"))
        return messages

    def _add(self, message: dict[str, Any], position: str | Picture, kind: str | None) -> None:
        if not isinstance(position, str):
            message.setdefault("said", []).append(IMAGE_MARK)
        elif kind == "reasoning":
            before = [message["reasoning_content"]] if "reasoning_content" in message else []
            message["reasoning_content"] = "\n".join([*before, self.clean(position)])
        elif kind == "tool_call":
            message.setdefault("tool_calls", []).append(self._cleaned(json.loads(position)))
        else:
            message.setdefault("said", []).append(self.clean(position))

    def said(self, ids: list[int]) -> str:
        """Return what generated tokens say, without control tokens that are not trusted and without outer white space."""
        names = self.template.control - self.trusted
        kept = [number for number in ids if self.tokenizer.convert_ids_to_tokens(number) not in names]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()

    def clean(self, text: str) -> str:
        """Take from a text what would act as markup: our marks, and what it spells of the conversation's control tokens.

        All else stays: added tokens that are ordinary text (line ends, blanks, tags, <think>), and those that are trusted.
        """
        text = MARKS.sub("\ufffd", text)
        pattern = self._control
        # A word joiner inside the token's name leaves it readable and keeps a page from closing the turn it stands in.
        while pattern.search(text):
            text = pattern.sub(lambda m: m[0][:1] + "\u2060" + m[0][1:] if len(m[0]) > 1 else "\ufffd", text)
        return text

    @property
    def _control(self) -> re.Pattern[str]:
        names = self.template.control | {self.image_token}
        if self._patterns is None or self._patterns[0] != names:
            longest_first = sorted(names - self.trusted, key=lambda name: (-len(name), name))
            self._patterns = names, re.compile("|".join(map(re.escape, longest_first)))
        return self._patterns[1]

    def _cleaned(self, value: Any) -> Any:
        """Clean every text of a JSON value."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, list):
            return [self._cleaned(one) for one in value]
        if isinstance(value, dict):
            return {self.clean(name): self._cleaned(one) for name, one in value.items()}
        return value

    def _tools(self, document: Document) -> list[Any] | None:
        return self._cleaned(document.tools) if document.tools else None

    def _end(self) -> str:
        return self.tokenizer.eos_token or "\n"

    def _encode(self, text: str, answers: Sequence[tuple[int, int]], images: list[Picture]) -> Prompt:
        """Tokenize a whole text, as its model will see it, and put as many image tokens as each image takes.

        `answers` are the ranges of characters that have a loss.
        """
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens, offsets = encoded["input_ids"], encoded["offset_mapping"]
        begin = [] if tokens[: len(self._begin)] == self._begin else self._begin
        if tokens.count(self.image_token_id) != len(images):
            found, name = tokens.count(self.image_token_id), self.tokenizer.name_or_path
            raise ValueError(f"the chat template of {name} shows {found} of {len(images)} images")
        has_loss = bytearray(len(text) + 1)
        for start, end in answers:
            has_loss[start:end] = b"\1" * (end - start)
        ids, labels, starts = list(begin), [IGNORE] * len(begin), list[int]()
        counts = [self.tokens_of(image) for image in images]
        for token, (start, end) in zip(tokens, offsets, strict=True):
            if token == self.image_token_id:
                starts.append(len(ids))
                count = counts[len(starts) - 1]
                ids += [token] * count
                labels += [IGNORE] * count
            else:
                ids.append(token)
                at = text.find(self._names[token], start, end) if token in self._names else -1
                if at >= 0:  # an added token, which may have swallowed white space beside it
                    start, end = at, at + 1
                # A token of no characters (a blank that the tokenizer writes itself) belongs to what follows it.
                labels.append(token if any(has_loss[start : max(end, start + 1)]) else IGNORE)
        return Prompt(ids, labels, images, starts, counts)


def truncate(prompt: Prompt, max_tokens: int) -> Prompt:
    """Return the longest beginning within `max_tokens` that splits no image: one that would be cut ends it instead."""
    end = min(max_tokens, len(prompt.input_ids))
    kept = 0
    for start, count in zip(prompt.image_starts, prompt.image_counts, strict=True):
        if start + count > end:
            end = min(end, start)
            break
        kept += 1
    return Prompt(
        prompt.input_ids[:end],
        prompt.labels[:end],
        prompt.images[:kept],
        prompt.image_starts[:kept],
        prompt.image_counts[:kept],
    )


def _images(document: Document) -> list[Picture]:
    return [p for p in document.positions if not isinstance(p, str)]


def _joined(said: list[str], between: str) -> Iterator[str]:
    """Give texts and images with what stands between them; nothing stands between two images."""
    for number, piece in enumerate(said):
        if number > 0 and not said[number - 1] == piece == IMAGE_MARK:
            yield between
        yield piece


def _says_something(message: Message) -> bool:
    said = [message["content"], message.get("reasoning_content", "")]
    return bool(message.get("tool_calls")) or any(_NOTHING.sub("", text) for text in said)


def _written_before(tokenizer: Any) -> list[int]:
    """Return the tokens that the tokenizer itself writes before a text: a BOS, or nothing."""
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return whole[:at]


def _check_trusted(name: str, template: ChatTemplate, image_token: str) -> None:
    """Raise RecipeError for a token that the tokenizer does not have, or that conversations are made of."""
    tokenizer = template.tokenizer
    if name not in tokenizer.get_vocab():
        raise RecipeError(f"trusted_tokens: the tokenizer {tokenizer.name_or_path} has no token '{name}'")
    ends = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, image_token}
    if name in template.turn_markers | ends:
        raise RecipeError(f"trusted_tokens: '{name}' opens or ends turns, or stands for an image: no text may write it")
